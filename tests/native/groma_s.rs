//! groma-s on a real photo, against what the executable specification says of it (`groma_s/make.py`).

use std::path::{Path, PathBuf};

use groma::groma::preprocess;
use groma::pack::Checkpoint;
use groma::session::{Model, Photo, Request, Task};
use groma::tensor::Device;
use groma::tensor::plan::Run;
use pollster::block_on;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How far a box's number may lie from the specification's: what two f32 runs differ by, with room.
const NEAR: f64 = 2e-4;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/groma_s")
}

fn task(case: &Value) -> Task {
    let user = case["user"].as_str().expect("a text");
    let phrase = || user.split(['<', '>']).nth(2).expect("a phrase in its marks").to_owned();
    match case["task"].as_str() {
        Some("describe") => Task::Describe,
        Some("detect") => Task::Detect(phrase()),
        Some("locate") => Task::Locate(phrase()),
        other => panic!("no such task: {other:?}"),
    }
}

#[test]
fn groma_s_says_what_the_specification_says() {
    let book: Value = serde_json::from_slice(&std::fs::read(here().join("expected.json")).unwrap()).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/groma-s");
    let weights = format!("{:x}", Sha256::digest(std::fs::read(folder.join("model.safetensors")).unwrap()));
    assert_eq!(book["weights"], json!(weights), "other weights: run tests/native/groma_s/make.py");
    let source = Checkpoint::open_with(&folder, None).expect("the bases are there (npm run bases)");
    let model = block_on(Model::load(&source, &Device::cpu(), &Run::default())).unwrap();
    let rgb = preprocess::decode(&std::fs::read(here().join("coffee.png")).unwrap()).unwrap();
    let mut photo = block_on(Photo::open(&model, &rgb, &Run::default())).unwrap();

    let (width, height) = (photo.width() as f64, photo.height() as f64);
    let want: Vec<Vec<f64>> = serde_json::from_value(book["boxes"].clone()).unwrap();
    let got = photo.regions();
    assert_eq!(got.len(), want.len());
    for (region, want) in got.iter().zip(&want) {
        let [x0, y0, x1, y1] = region.bbox.map(f64::from);
        let got = [x0 / width, y0 / height, x1 / width, y1 / height];
        // what is told ends where the photo does; the specification's boxes may not
        let [cx, cy, w, h] = want[..] else { panic!("four numbers: {want:?}") };
        let want = [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0].map(|v| v.clamp(0.0, 1.0));
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < NEAR, "region {}: {got} is not {want}", region.id);
        }
    }
    for case in book["cases"].as_array().unwrap() {
        photo.reset();
        let max_tokens = usize::try_from(book["max_new_tokens"].as_u64().unwrap()).unwrap();
        let request = Request { task: task(case), max_tokens, temperature: 0.0, seed: 0 };
        let answer = block_on(photo.ask(&request, &Run::default(), &mut |_| ())).unwrap();
        assert_eq!(json!(answer.tokens), case["tokens"], "{}", case["user"]);
    }
}
