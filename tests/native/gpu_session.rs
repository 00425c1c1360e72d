//! A conversation on a GPU adapter: nothing piles up, whatever goes wrong in between; WebGPU's default limits suffice.

use std::path::PathBuf;
use std::rc::Rc;

use groma::Code;
use groma::groma::preprocess::{self, Rgb};
use groma::pack::Checkpoint;
use groma::session::{Model, Photo, Request, Stopped, Task};
use groma::tensor::gpu::{Counters, Gpu, Options};
use groma::tensor::plan::Run;
use groma::tensor::{DType, Device};
use pollster::block_on;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn gpu(options: Options) -> Gpu {
    block_on(Gpu::create(options)).expect("a Vulkan adapter (Mesa's lavapipe will do)")
}

fn load(folder: &str, device: &Device) -> groma::Result<Rc<Model>> {
    let source = Checkpoint::open(golden(folder)).expect("a golden model");
    block_on(Model::load(&source, device, &Run::default()))
}

fn picture(folder: &str, file: &str) -> Rgb {
    preprocess::decode(&std::fs::read(golden(folder).join(file)).expect("a photo")).expect("it decodes")
}

fn question(text: &str) -> Request {
    let task = Task::Ask { question: text.to_owned(), grounded: true, refer: Vec::new() };
    Request { task, max_tokens: 12, temperature: 0.0, seed: 0 }
}

/// Questions of every kind, stops and refusals, about one photo.
fn talk(photo: &mut Photo, round: usize) {
    let ask = |photo: &mut Photo, request: &Request| block_on(photo.ask(request, &Run::default(), &mut |_| ()));
    // the longest first, so that the cache has grown to its size
    let long = Request { max_tokens: 60, ..question("Tell me everything about this photo.") };
    ask(photo, &long).expect("it answers");
    let refused = ask(photo, &question(&"why ".repeat(3000))).expect_err("it is too long");
    assert_eq!(refused.code, Code::PromptTooLong);
    assert_eq!(ask(photo, &question(" ")).expect_err("it is empty").code, Code::QuestionEmpty);
    let (w, h) = (photo.width() as f32, photo.height() as f32);
    let bbox = [0.1 * w, 0.1 * h, (0.5 + 0.05 * round as f32) * w, 0.7 * h];
    let boxed = Request { task: Task::Caption { bbox, long: false }, ..question("") };
    ask(photo, &boxed).expect("it answers");
    let sampled = Request { temperature: 1.0, ..question("What is this?") };
    ask(photo, &sampled).expect("it answers");
    // stopped before anything, in the middle of an answer, and gone on from there
    let stopped = Run::default();
    stopped.cancel.cancel();
    let answer = block_on(photo.ask(&question("And this?"), &stopped, &mut |_| ())).expect("stopping is no failure");
    assert_eq!(answer.stopped, Stopped::Aborted);
    let run = Run::default();
    let cancel = run.cancel.clone();
    block_on(photo.ask(&question("And this?"), &run, &mut |_| cancel.cancel())).expect("stopping is no failure");
    ask(photo, &question("And now?")).expect("it answers");
    photo.reset();
}

#[test]
fn gpu_bytes_do_not_grow_over_questions_and_photos() {
    let gpu = gpu(Options::from_env());
    let model = load("tiny2", &Device::Gpu(gpu.clone())).expect("it loads");
    block_on(model.warm_up(&Run::default())).expect("it warms up");
    let pictures = [picture("tiny2", "photo_A.png"), picture("tiny2", "photo_B.png")];
    let held = |c: &Counters| (c.weight_bytes, c.kept_bytes, c.temporary_bytes);
    let mut after_photo = Vec::new();
    for round in 0..5 {
        let stop = Run::default();
        stop.cancel.cancel();
        let unseen = block_on(Photo::open(&model, &pictures[0], &stop)).expect_err("it was stopped");
        assert_eq!(unseen.code, Code::Aborted);
        let mut photo = block_on(Photo::open(&model, &pictures[round % 2], &Run::default())).expect("it is looked at");
        // four answers each, and what goes wrong: twenty with five photos, and once more with the first
        talk(&mut photo, round);
        if round == 0 {
            let held = gpu.counters().bytes();
            talk(&mut photo, round);
            assert_eq!(gpu.counters().bytes(), held, "a second talk uses what the first one made");
        }
        drop(photo);
        after_photo.push(gpu.counters());
    }
    let first = &after_photo[0];
    for c in &after_photo {
        assert_eq!(held(c), held(first), "bytes after every photo: {after_photo:?}");
    }
    drop(model);
    let c = gpu.counters();
    assert_eq!((c.weight_bytes, c.kept_bytes), (0, 0), "a model takes all of its own with it: {c:?}");
    assert!(c.bytes() <= 1 << 16, "only staging stays: {c:?}");
}

/// On a device that is fast enough, pixels to boxes is one submit and one look, to region tokens another submit.
#[test]
fn gpu_pixels_to_region_tokens_are_two_submits() {
    let gpu = gpu(Options::from_env());
    let model = load("tiny2", &Device::Gpu(gpu.clone())).expect("it loads");
    block_on(model.warm_up(&Run::default())).expect("it warms up");
    gpu.set_rate(1 << 50);
    let before = gpu.counters();
    let rgb = picture("tiny2", "photo_A.png");
    let mut photo = block_on(Photo::open(&model, &rgb, &Run::default())).expect("it is looked at");
    let seen = gpu.counters().since(&before);
    assert_eq!((seen.submits, seen.readbacks), (1, 1), "pixels to boxes: {seen:?}");
    block_on(photo.regions_for(&question("What is this?").task, &Run::default())).expect("regions");
    let all = gpu.counters().since(&before);
    assert_eq!((all.submits, all.readbacks), (2, 1), "pixels to region tokens: {all:?}");
}

/// The limits that every WebGPU device grants, and less.
#[test]
fn gpu_answers_within_default_limits() {
    let cpu = load("tiny2", &Device::cpu()).expect("it loads");
    let rgb = picture("tiny2", "photo_A.png");
    let tokens = |model: &Rc<Model>| {
        let mut photo = block_on(Photo::open(model, &rgb, &Run::default())).expect("it is looked at");
        block_on(photo.ask(&question("What is this?"), &Run::default(), &mut |_| ())).expect("it answers").tokens
    };
    let want = tokens(&cpu);
    let default = Options { default_limits: true, ..Options::from_env() };
    let cases = [
        ("default limits", default),
        ("real kernels", Options { software_kernels: Some(false), ..default }),
        // large weights in several buffers; the largest value of this model just fits
        ("1 MiB bindings", Options { binding: Some(1 << 20), ..default }),
        ("slow readbacks", Options { map_latency_ms: 20, ..default }),
    ];
    for (name, options) in cases {
        let gpu = gpu(options);
        let info = gpu.info();
        let limits = (info.binding, info.buffer, info.storage_buffers, info.workgroup_bytes, info.workgroup_threads);
        assert_eq!(limits, (128 << 20, 256 << 20, 8, 16 << 10, 256), "{name}");
        let model = load("tiny2", &Device::Gpu(gpu)).expect("it loads");
        assert_eq!(tokens(&model), want, "{name}");
    }
}

/// What does not fit one binding is refused with a sentence, and the device goes on.
#[test]
fn gpu_refuses_values_larger_than_a_binding() {
    let gpu = gpu(Options { binding: Some(4 << 10), ..Options::from_env() });
    let device = Device::Gpu(gpu);
    let model = load("tiny2", &device).expect("weights lie in several buffers");
    let refused = block_on(Photo::open(&model, &picture("tiny2", "photo_A.png"), &Run::default()));
    let e = refused.expect_err("its pixels are larger than 4 KiB");
    assert_eq!(e.code, Code::OutOfMemory, "{e}");
    assert!(e.to_string().contains("bind"), "{e}");
    let t = device.tensor_f32("small", &[2], &[1.0, 2.0]).expect("the device goes on");
    assert_eq!(block_on(device.read_f32(&[&t])).expect("reads"), [[1.0, 2.0]]);
}

/// Memory that runs out at any moment is an error with a code, and what was held is given back.
#[test]
fn gpu_memory_that_runs_out_is_told_and_given_back() {
    let enough = {
        let gpu = gpu(Options::from_env());
        let model = load("tiny2", &Device::Gpu(gpu.clone())).expect("it loads");
        let mut photo =
            block_on(Photo::open(&model, &picture("tiny2", "photo_A.png"), &Run::default())).expect("it is looked at");
        block_on(photo.ask(&question("What is this?"), &Run::default(), &mut |_| ())).expect("it answers");
        gpu.counters().peak_bytes
    };
    let mut refused = 0;
    for share in 1..=10 {
        let gpu = gpu(Options { memory: Some(enough * share / 10), ..Options::from_env() });
        let device = Device::Gpu(gpu.clone());
        let talk = || -> groma::Result<()> {
            let model = load("tiny2", &device)?;
            let mut photo = block_on(Photo::open(&model, &picture("tiny2", "photo_A.png"), &Run::default()))?;
            block_on(photo.ask(&question("What is this?"), &Run::default(), &mut |_| ())).map(drop)
        };
        if let Err(e) = talk() {
            refused += 1;
            assert_eq!(e.code, Code::OutOfMemory, "{e}");
            assert!(e.to_string().contains("MiB"), "{e}");
        }
        assert!(gpu.counters().bytes() <= 1 << 16, "all was given back: {:?}", gpu.counters());
        device.zeros("small", &[256], DType::F32).expect("the device goes on");
    }
    assert!((1..10).contains(&refused), "the last one has enough, the first one has not: {refused}");
}
