//! What the prompt says of earlier answers while regions come and go.

use std::path::Path;

use pollster::block_on;

use super::*;
use crate::groma::preprocess;
use crate::pack::Checkpoint;
use crate::tensor::Device;

/// A photo of a tiny model, and an answer said about it that named every region.
fn photo() -> Photo {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny2");
    let source = Checkpoint::open(&folder).unwrap();
    let model = block_on(Model::load(&source, &Device::cpu(), &Run::default())).unwrap();
    let rgb = preprocess::decode(&std::fs::read(folder.join("photo_A.png")).unwrap()).unwrap();
    let mut photo = block_on(Photo::open(&model, &rgb, &Run::default())).unwrap();
    let tokens = model.tokens().unwrap();
    let mut said: Vec<u32> = ["<p>", "</p>", "<roi>"].map(|t| tokens.need(t).unwrap()).to_vec();
    said.extend(&tokens.index_ids()[..photo.regions().len()]);
    said.push(tokens.need("</roi>").unwrap());
    block_on(photo.recall(&question(), &said, &Run::default())).unwrap();
    photo
}

fn question() -> Task {
    Task::Ask { question: "What is this?".to_owned(), grounded: true, refer: Vec::new() }
}

/// A box of the photo's corner, far from the last region, which makes room for it.
fn boxed(photo: &Photo, question: &str) -> Task {
    let (w, h) = (photo.width as f32, photo.height as f32);
    let refer = vec![[0.0, 0.0, 0.5 * w, 0.5 * h]];
    Task::Ask { question: question.to_owned(), grounded: true, refer }
}

fn rows(photo: &mut Photo, task: &Task) -> Vec<prompt::Row> {
    let turn = photo.turn(task).unwrap();
    block_on(photo.choose(&Run::default())).unwrap();
    photo.rows(&turn, photo.chosen.as_ref().unwrap()).unwrap()
}

#[test]
fn a_region_that_was_pushed_out_returns() {
    let mut photo = photo();
    let before = rows(&mut photo, &question());
    let old = photo.own.boxes.clone();
    let task = boxed(&photo, "What is [1]?");
    let during = rows(&mut photo, &task);
    let new = &photo.chosen.as_ref().unwrap().selected.boxes;
    let to = prompt::remap(&old, new);
    let back = prompt::remap(new, &old);
    let home: Vec<usize> = to.iter().map(|n| back[*n]).collect();
    assert_ne!(home, (0..old.len()).collect::<Vec<_>>(), "there and back by overlap alone leads elsewhere");
    // the answer's numbers are the one stretch of them without features between
    let ids = photo.model.special().unwrap().index.clone();
    let want: Vec<prompt::Row> = to.iter().map(|n| prompt::Row::Token(ids[*n])).collect();
    assert!(during.windows(want.len()).any(|w| w == want), "the answer speaks of what overlaps its regions most");
    assert_eq!(rows(&mut photo, &question()), before, "without the box it speaks of its own regions again");
}

#[test]
fn a_refused_question_changes_no_earlier_answer() {
    let mut photo = photo();
    let before = rows(&mut photo, &question());
    let task = boxed(&photo, &"why ".repeat(3000));
    let request = Request { task, max_tokens: 4, temperature: 0.0, seed: 0 };
    let e = block_on(photo.ask(&request, &Run::default(), &mut |_| ())).unwrap_err();
    assert_eq!(e.code, Code::PromptTooLong);
    assert_eq!(rows(&mut photo, &question()), before);
}
