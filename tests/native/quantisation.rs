//! What each quantisation costs on groma-s: prints the README's table.
//!
//! `cargo nextest run --run-ignored only quantisation --no-capture`, with photos' paths in `GROMA_PHOTOS` (separated by
//! commas) and the bases brought by `npm run bases`.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use groma::groma::decoder::Ending;
use groma::groma::prompt::{self, Row};
use groma::groma::select::{Rules, corners, iou, select};
use groma::groma::{preprocess, region_encoder};
use groma::pack::convert::{Options, convert};
use groma::pack::{Checkpoint, Pack};
use groma::session::{Model, Sources, Text};
use groma::tensor::ops::argmax::first_greatest;
use groma::tensor::plan::Run;
use groma::tensor::{DType, Device, Numerics, Plan, Tensor};
use pollster::block_on;

/// Tokens compared, over all photos.
const TOKENS: usize = 200;
/// Two boxes are the same region from this overlap on.
const SAME: f64 = 0.9;
/// And nearly the same from this.
const NEARLY: f64 = 0.5;

/// What one model says about one photo.
struct Seen {
    stages: HashMap<String, Vec<f32>>,
    boxes: Vec<[f32; 4]>,
    image: Tensor,
    maps: Vec<Tensor>,
}

fn read(model: &Model, t: &Tensor) -> Vec<f32> {
    block_on(model.device().read_f32(&[t])).expect("readable").remove(0)
}

fn look(model: &Model, photo: &Path) -> Seen {
    let rgb = preprocess::decode(&std::fs::read(photo).expect("a photo")).expect("it decodes");
    let vision = model.plan_vision(true, HashMap::new()).expect("recorded");
    model.device().write_f32(&vision.pixels, 0, &model.pixels(&rgb)).expect("written");
    block_on(vision.compiled.run(&Run::default())).expect("it runs");
    let taps = vision.compiled.plan().taps().iter().filter(|t| t.tensor.dtype() == DType::F32);
    let stages = taps.map(|t| (t.name.clone(), read(model, &t.tensor))).collect();
    let p = vision.seen.proposals.clone().expect("a proposer");
    let c = model.config();
    let boxes = read(model, &p.boxes).as_chunks::<4>().0.to_vec();
    let rules = Rules { nms: c.nms_thres, score: c.box_score_thres, max: c.max_region_num, shuffle_seed: None };
    let kept = select(&boxes, &read(model, &p.scores), &[], &rules).expect("selected");
    Seen {
        stages,
        boxes: kept.boxes,
        image: vision.seen.image.clone().expect("a bridge"),
        maps: vision.seen.maps.clone(),
    }
}

fn tokens_of(model: &Model, seen: &Seen, boxes: &[[f32; 4]]) -> Tensor {
    let (d, c) = (model.device(), model.config());
    let rois = region_encoder::rois(c, boxes);
    let rois = d.tensor_f32("rois", &[boxes.len(), 4], rois.as_flattened()).expect("made");
    let flat = d.tensor_f32("boxes", &[boxes.len(), 4], boxes.as_flattened()).expect("made");
    let out = d.zeros("tokens", &[boxes.len(), c.llm.hidden_size], DType::F32).expect("made");
    let mut p = Plan::new(d, false);
    region_encoder::record_tokens(&mut p, c, model.weights(), &seen.maps, &flat, &rois, &out).expect("recorded");
    block_on(p.compile().expect("compiled").run(&Run::default())).expect("it runs");
    out
}

/// Rows of "describe this photo" for so many regions.
fn rows(model: &Model, regions: usize) -> Vec<Row> {
    let parts = prompt::build(model.config().chat_template, &[prompt::describe().parts]);
    let ids = model.tokens().and_then(|t| t.encode_template(&parts)).expect("encoded");
    let special = model.special().expect("a Groma tokenizer");
    prompt::expand(&ids, model.config().image_tokens(), regions, &[], special).expect("expanded").rows
}

/// What the last layer makes of every token of `said`. The prompt's rows are left out: the first one's is hundreds of
/// times as large as all others and would hide them.
fn hidden(model: &Rc<Model>, seen: &Seen, regions: &Tensor, prompt: &[Row], said: &[u32]) -> Vec<f32> {
    let mut text = Text::new(model).expect("a decoder").tapped();
    let from = Sources { image: Some(&seen.image), regions: Some(regions) };
    let rows = [prompt, &said.iter().map(|t| Row::Token(*t)).collect::<Vec<_>>()].concat();
    block_on(text.read(&rows, 1, from, Ending::Logits, &Run::default())).expect("it reads");
    let last = format!("llm.layer{}", model.config().llm.num_hidden_layers - 1);
    let tap = text.taps().find(|t| t.name == last).expect("the last layer").tensor.clone();
    read(model, &tap)[prompt.len() * model.config().llm.hidden_size..].to_vec()
}

/// The best token after every beginning of `said`.
fn best(model: &Rc<Model>, seen: &Seen, regions: &Tensor, prompt: &[Row], said: &[u32]) -> Vec<u32> {
    let mut text = Text::new(model).expect("a decoder");
    let from = Sources { image: Some(&seen.image), regions: Some(regions) };
    let mut all = prompt.to_vec();
    let mut out = Vec::new();
    for token in said {
        block_on(text.read(&all, 1, from, Ending::Logits, &Run::default())).expect("it reads");
        out.push(first_greatest(&block_on(text.logits()).expect("logits")) as u32);
        all.push(Row::Token(*token));
    }
    out
}

fn generate(model: &Rc<Model>, seen: &Seen, regions: &Tensor, prompt: &[Row], count: usize) -> Vec<u32> {
    let mut text = Text::new(model).expect("a decoder");
    let from = Sources { image: Some(&seen.image), regions: Some(regions) };
    let mut all = prompt.to_vec();
    let mut said = Vec::new();
    for _ in 0..count {
        block_on(text.read(&all, 1, from, Ending::Logits, &Run::default())).expect("it reads");
        said.push(first_greatest(&block_on(text.logits()).expect("logits")) as u32);
        all.push(Row::Token(*said.last().expect("just pushed")));
    }
    said
}

/// Squared error over squared size.
fn nmse(ours: &[f32], exact: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let error: f64 = ours.iter().zip(exact).map(|(a, b)| square(f64::from(a - b))).sum();
    error / exact.iter().map(|v| square(f64::from(*v))).sum::<f64>()
}

#[test]
#[ignore = "takes minutes and prints the README's table"]
fn quantisation() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let photos = std::env::var("GROMA_PHOTOS").expect("GROMA_PHOTOS names photos");
    let photos: Vec<PathBuf> = photos.split(',').map(PathBuf::from).collect();
    let source = Checkpoint::open_with(root.join("models/groma-s"), None).expect("the bases are there");
    let exact = block_on(Model::load(&source, &Device::cpu(), &Run::default())).expect("it loads");
    let each = TOKENS.div_ceil(photos.len());
    let reference: Vec<_> = photos
        .iter()
        .map(|p| {
            let seen = look(&exact, p);
            let regions = tokens_of(&exact, &seen, &seen.boxes);
            let prompt = rows(&exact, seen.boxes.len());
            let said = generate(&exact, &seen, &regions, &prompt, each);
            let state = hidden(&exact, &seen, &regions, &prompt, &said);
            (seen, regions, prompt, said, state)
        })
        .collect();
    let layers = exact.config().vision.num_hidden_layers;
    // the proposer's places: behind them queries are in the order of their scores, and equal rows stand elsewhere
    let stages = [format!("vis.h{layers}"), "det.obj".to_owned(), "bridge.tokens".to_owned()];
    println!(
        "| weights | encoder | proposer | image tokens | region tokens | decoder | same regions | nearly | tokens agreeing |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let work = tempfile::tempdir().expect("a folder for packs");
    let variants: [(&str, &[&str], Numerics); 6] = [
        ("default", &[], Numerics::Exact),
        ("default, `fast`", &[], Numerics::Fast),
        ("f16", &["f16"], Numerics::Exact),
        ("q8_0", &["q8_0"], Numerics::Exact),
        ("q4_1", &["q4_1"], Numerics::Exact),
        ("q4_0", &["q4_0"], Numerics::Exact),
    ];
    for (name, quants, numerics) in variants {
        let mut options = Options::default();
        quants.iter().for_each(|q| options.quant(q).expect("a type"));
        let out = work.path().join(name.replace(|c: char| !c.is_alphanumeric(), "_"));
        convert(&root.join("models/groma-s"), &out, &options, &|_| ()).expect("converted");
        let pack = Pack::open(&out).expect("a pack");
        let model = block_on(Model::load(&pack, &Device::Cpu(numerics), &Run::default())).expect("it loads");
        let mut errors = [0.0; 5];
        let (mut kept, mut near, mut all, mut agree) = (0, 0, 0, 0);
        for (photo, (seen, regions, prompt, said, state)) in photos.iter().zip(&reference) {
            let got = look(&model, photo);
            for (e, stage) in errors.iter_mut().zip(&stages) {
                *e += nmse(&got.stages[stage], &seen.stages[stage]) / photos.len() as f64;
            }
            let tokens = tokens_of(&model, &got, &seen.boxes);
            errors[3] += nmse(&read(&model, &tokens), &read(&exact, regions)) / photos.len() as f64;
            errors[4] += nmse(&hidden(&model, seen, regions, prompt, said), state) / photos.len() as f64;
            let found = |least: f64| {
                let has = |b: &&[f32; 4]| got.boxes.iter().any(|g| iou(&corners(g), &corners(b)) >= least);
                seen.boxes.iter().filter(has).count()
            };
            kept += found(SAME);
            near += found(NEARLY);
            all += seen.boxes.len();
            let ours = best(&model, &got, &tokens, prompt, said);
            agree += ours.iter().zip(said).filter(|(a, b)| a == b).count();
        }
        let [a, b, c, d, e] = errors;
        let n = each * photos.len();
        println!(
            "| {name} | {a:.1e} | {b:.1e} | {c:.1e} | {d:.1e} | {e:.1e} | {kept} of {all} | {near} of {all} | {agree} of {n} |"
        );
        std::fs::remove_dir_all(&out).expect("removed");
    }
}
