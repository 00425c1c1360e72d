//! What groma-s costs a GPU, in counts that do not depend on its speed (PERFORMANCE's "must").

#![expect(clippy::print_stdout, reason = "it prints what it counted")]

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use groma::groma::decoder::Ending;
use groma::groma::preprocess::Rgb;
use groma::groma::prompt::Row;
use groma::groma::sample::Sampler;
use groma::pack::Pack;
use groma::pack::convert::{Options as Convert, convert};
use groma::session::bench::largest_value;
use groma::session::{Model, Photo, Request, Sources, Task, Text};
use groma::tensor::Device;
use groma::tensor::gpu::{Gpu, Options};
use groma::tensor::plan::Run;
use pollster::block_on;

/// Tokens that warm up and are not counted.
const FIRST: usize = 8;
/// Tokens in all.
const ALL: usize = 64;
/// A device so fast that everything fits one submit: what is counted then does not depend on this machine.
const FAST: u64 = 1 << 50;

/// groma-s on a GPU that is taken to be fast; the folder holds its pack.
fn model() -> (tempfile::TempDir, Gpu, Rc<Model>) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/groma-s");
    let dir = tempfile::tempdir().expect("a folder for the pack");
    let out = dir.path().join("pack");
    convert(&source, &out, &Convert::default(), &|_| ()).expect("the bases are there (npm run bases)");
    let gpu = block_on(Gpu::create(Options::from_env())).expect("a Vulkan adapter (Mesa's lavapipe will do)");
    let pack = Pack::open(&out).expect("a pack");
    let model = block_on(Model::load(&pack, &Device::Gpu(gpu.clone()), &Run::default())).expect("it loads");
    block_on(model.warm_up(&Run::default())).expect("it warms up");
    gpu.set_rate(FAST);
    (dir, gpu, model)
}

#[test]
fn gpu_groma_s_looks_and_reads_within_its_counts() {
    let (_dir, gpu, model) = model();
    // pixels to boxes is one submit and one look, to region tokens another submit
    let shade = |i: usize| [(i % 448 / 2) as u8, (i / 448 / 2) as u8, (i / 7 % 256) as u8];
    let rgb = Rgb::new(448, 448, (0..448 * 448).flat_map(shade).collect()).expect("a picture");
    let before = gpu.counters();
    let mut photo = block_on(Photo::open(&model, &rgb, &Run::default())).expect("it is looked at");
    let seen = gpu.counters().since(&before);
    let question = |text: &str| Task::Ask { question: text.to_owned(), grounded: true, refer: Vec::new() };
    let request = |task: Task| Request { task, max_tokens: 2, temperature: 0.0, seed: 0 };
    block_on(photo.regions_for(&question("What is this?"), &Run::default())).expect("regions");
    let vision = gpu.counters().since(&before);
    println!("vision: {vision:?}");
    assert_eq!((seen.submits, seen.readbacks), (1, 1), "pixels to boxes: {seen:?}");
    assert_eq!((vision.submits, vision.readbacks), (2, 1), "pixels to region tokens: {vision:?}");

    // what is read again: after the longest common prefix; from the regions on
    let mut ask = |task: Task| {
        let answer = block_on(photo.ask(&request(task), &Run::default(), &mut |_| ())).expect("it answers");
        println!("prompt: {:?}", answer.timing);
        answer.timing
    };
    let first = ask(question("What is this?"));
    assert_eq!((first.reused, first.prefilled), (0, first.prompt), "nothing is kept yet: {first:?}");
    let second = ask(question("And this?"));
    assert!(second.reused >= first.prompt && second.prefilled == second.prompt - second.reused, "{second:?}");
    let boxed = ask(Task::Caption { bbox: [20.0, 20.0, 200.0, 300.0], long: false });
    assert!(boxed.reused > model.config().image_tokens(), "the image stays: {boxed:?}");
    assert_eq!(boxed.prefilled, boxed.prompt - boxed.reused, "{boxed:?}");

    // memory, when all of it was used
    let (peak, kv) = (gpu.counters().peak_bytes, photo.cache_bytes() as u64);
    let needed = model.weights().bytes() as u64 + kv + largest_value(model.vision().expect("made").compiled.plan());
    println!("memory: {:.3} of {needed} with {kv} of cache; {:?}", peak as f64 / needed as f64, gpu.counters());
    assert!(peak * 100 <= needed * 125, "bytes held over bytes needed: {peak} over {needed}");
}

#[test]
fn gpu_groma_s_decodes_within_its_counts() {
    let (_dir, gpu, model) = model();
    // taken to be fast here too: on a device whose tokens take long the host looks sooner
    let mut text = Text::new(&model).expect("a decoder").with_silence(Duration::MAX);
    let rows: Vec<Row> = (1000..1012).map(Row::Token).collect();
    block_on(text.read(&rows, ALL, Sources::default(), Ending::Greedy, &Run::default())).expect("it reads");
    let mut greedy = Sampler::new(0.0, 0).expect("a sampler");
    let (mut said, mut before) = (0, None);
    block_on(text.generate(&mut greedy, ALL, &Run::default(), &mut |_| {
        said += 1;
        if said == FIRST {
            before = Some(gpu.counters());
        }
        Ok(true)
    }))
    .expect("it speaks");
    let c = gpu.counters().since(&before.expect("more than the first tokens came"));
    let (tokens, layers) = ((ALL - FIRST) as u64, model.config().llm.num_hidden_layers as u64);
    println!("{tokens} tokens, {layers} layers: {c:?}");
    assert_eq!(said, ALL, "stop tokens are not looked at here");
    assert!(c.dispatches <= tokens * (5 * layers + 8), "at most five dispatches a layer: {c:?}");
    assert_eq!((c.buffers_created, c.bind_groups_created), (0, 0), "decoding makes nothing: {c:?}");
    assert!(c.submits * 8 <= tokens && c.readbacks * 8 <= tokens, "one submit, one look in eight tokens: {c:?}");
    assert!(c.bytes_up == 0 && c.bytes_down == 4 * tokens, "bytes a token: {c:?}");
}
