//! The machinery around kernels: counts, memory, streaming, errors, the recorder without a GPU.

use groma::Code;
use groma::tensor::gpu::variants::Traits;
use groma::tensor::gpu::{Options, Slots, lower};
use groma::tensor::ops::{self, Act, Cache, Linear, Projection};
use groma::tensor::plan::{Cancel, Look, Run, Then};
use groma::tensor::probe::{Rates, teach_rate};
use groma::tensor::{DType, Device, Plan, Tensor};

use crate::harness::{Rand, devices, gpu};

/// One decoder layer and the way to the next token, as small as can be.
fn decode_step(device: &Device, layers: usize) -> (Plan, Tensor) {
    let (hidden, heads, width, inner, vocabulary) = (64, 4, 16, 96, 100);
    let mut rand = Rand::new(5);
    let mut weight = |rows: usize, cols: usize| {
        let data: Vec<f32> = rand.numbers(rows * cols).iter().map(|v| v / 8.0).collect();
        device.tensor_f32("weight", &[rows, cols], &data).expect("fits")
    };
    let ones = device.tensor_f32("norm", &[hidden], &[1.0; 64]).expect("fits");
    let rope = ops::qkv::rope_table(64, width, 10000.0);
    let rope = device.tensor_f32("rope", &[64, width], &rope).expect("fits");
    let state = device.tensor("state", &[4], DType::U32, bytemuck::cast_slice(&[0u32, 1, 3, 0])).expect("fits");
    let history = device.zeros("history", &[32], DType::U32).expect("fits");
    let tokens = weight(vocabulary, hidden);
    let tables = ops::Tables { tokens: tokens.clone(), added: None, image: None, regions: None };
    let mut p = Plan::new(device, false);
    let mut x = ops::embed(&mut p, &state, 2, 1, &tables).expect("records");
    for layer in 0..layers {
        p.stage(format!("decoder.{layer}"));
        let k = device.zeros("keys", &[64, hidden], DType::F32).expect("fits");
        let v = device.zeros("values", &[64, hidden], DType::F32).expect("fits");
        let cache = Cache { k, v, state: state.clone() };
        let w = Projection { norm: ones.clone(), eps: 1e-5, weight: weight(3 * hidden, hidden), rope: rope.clone() };
        let q = ops::qkv(&mut p, x, &w, &cache, heads, heads, width).expect("records");
        let a = ops::cached_attention(&mut p, q, &cache, heads, heads, width).expect("records");
        x = ops::linear(&mut p, a, Linear::new(&weight(hidden, hidden), None).residual(x)).expect("records");
        let g = ops::gate_up(&mut p, x, Some((&ones, 1e-5)), &weight(2 * inner, hidden)).expect("records");
        x = ops::linear(&mut p, g, Linear::new(&weight(hidden, inner), None).residual(x)).expect("records");
    }
    p.stage("decoder.head");
    let n = ops::rms_norm(&mut p, x, &ones, 1e-5).expect("records");
    let logits = ops::linear(&mut p, n, Linear::new(&tokens, None)).expect("records");
    ops::argmax(&mut p, &[logits], &state, &history).expect("records");
    (p, history)
}

#[test]
fn a_decode_step_is_five_dispatches_a_layer_and_allocates_nothing() {
    for (_, gpu) in devices() {
        let device = Device::Gpu(gpu.clone());
        let (plan, history) = decode_step(&device, 3);
        let compiled = plan.compile().expect("compiles");
        assert_eq!(compiled.program().expect("a GPU plan").dispatches(), 3 * 5 + 4, "five a layer");
        let before = gpu.counters();
        pollster::block_on(compiled.run_times(16, &Run::default())).expect("runs");
        let done = gpu.counters().since(&before);
        assert_eq!((done.buffers_created, done.bind_groups_created), (0, 0), "nothing is made while decoding");
        assert_eq!((done.passes, done.submits), (1, 1), "sixteen tokens are one pass");
        assert_eq!((done.bytes_up, done.bytes_down), (0, 0), "nothing moves while decoding");
        let chosen = pollster::block_on(device.read_u32(&[&history])).expect("reads").remove(0);
        let (twin, history) = decode_step(&Device::cpu(), 3);
        let twin = twin.compile().expect("compiles");
        pollster::block_on(twin.run_times(16, &Run::default())).expect("runs");
        assert_eq!(chosen, pollster::block_on(Device::cpu().read_u32(&[&history])).expect("reads").remove(0));
        assert_eq!(gpu.counters().since(&before).readbacks, 1, "one readback for sixteen tokens");
    }
}

#[test]
fn a_plan_can_be_printed_without_a_gpu() {
    let (plan, _) = decode_step(&Device::cpu(), 1);
    let text = lower(&plan, Traits::DEFAULT).expect("lowers").print(&plan);
    let names: Vec<&str> = text.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    let want = [
        "embed_wf32",
        "qkv_wf32_lone",
        "decode_attention",
        "matvec_wf32_lone",
        "gate_up_wf32_lone",
        "matvec_wf32_lone",
        "norm_rms_lone",
        "matvec_wf32_lone",
        "argmax",
    ];
    assert_eq!(names, want);
}

/// What is held at a time lies apart, and nearly nothing else is held.
#[test]
fn temporaries_share_buffers_where_their_lives_allow_it() {
    let (plan, _) = decode_step(&Device::cpu(), 3);
    let recording = lower(&plan, Traits::DEFAULT).expect("lowers");
    let slots = Slots::assign(&plan, &recording);
    let (last, mut most) = (plan.last_uses(), 0);
    for (s, step) in plan.steps().iter().enumerate() {
        let begun =
            |v: usize| plan.steps()[..=s].iter().flat_map(|x| x.writes.iter().chain(&x.reads)).any(|w| w.index() == v);
        let mut live = Vec::new();
        for (v, info) in plan.values().iter().enumerate() {
            if info.resident.is_none() && last[v] != usize::MAX && last[v] >= s && begun(v) {
                live.push((slots.values[v].expect("it has a buffer"), 4 * info.shape.iter().product::<usize>()));
            }
        }
        let scratch = recording.scratch.iter().zip(&slots.scratch).filter(|(x, _)| x.step == s);
        live.extend(scratch.map(|(x, slot)| (*slot, x.bytes)));
        assert!(live.iter().all(|(slot, bytes)| slots.sizes[*slot] >= *bytes), "{}: {live:?}", step.label);
        most = most.max(live.iter().map(|(_, bytes)| bytes).sum());
        live.sort_unstable();
        assert!(live.windows(2).all(|w| w[0].0 != w[1].0), "{}: {live:?}", step.label);
    }
    let held: usize = slots.sizes.iter().sum();
    assert!(held <= most + most / 4, "{held} bytes for {most}");
}

/// A slow device gets the same work in several submits, a fast one in one; what follows rides on the last.
#[test]
fn submits_are_cut_by_the_rate() {
    for (_, gpu) in devices() {
        let device = Device::Gpu(gpu.clone());
        let mut seen = Vec::new();
        // 200 ms at the slow rate are 2 million operations; the 64 steps have 14 million
        for (rate, cut) in [(1 << 50, false), (10_000_000, true)] {
            let (plan, history) = decode_step(&device, 3);
            let compiled = plan.compile().expect("compiles");
            gpu.set_rate(rate);
            let before = gpu.counters();
            let kept = device.zeros("kept", &[32], DType::U32).expect("fits");
            let copies = [(history.clone(), kept.clone())];
            let looks = [Look { tensor: &history, first: 8, count: 24 }];
            let then = Then { copies: &copies, looks: &looks };
            let times = 64;
            let chosen = pollster::block_on(compiled.run_then::<u32>(times, then, &Run::default())).expect("runs");
            let done = gpu.counters().since(&before);
            assert_eq!(done.readbacks, 1, "one look");
            assert_eq!(done.submits > 1, cut, "{} submits at {rate} a second", done.submits);
            assert_eq!(done.dispatches, 64 * (3 * 5 + 4));
            assert_eq!(done.bytes_down, 4 * 24, "a part is read, not the whole");
            let kept = pollster::block_on(device.read_u32(&[&kept])).expect("reads").remove(0);
            assert_eq!(kept[8..], chosen[0], "the copy is of the same moment");
            seen.push(kept);
        }
        assert_eq!(seen[0], seen[1], "the cut changes nothing");
        gpu.set_rate(1 << 33);
    }
}

#[test]
fn a_device_is_probed() {
    let gpu = &devices()[0].1;
    for device in [Device::cpu(), Device::Gpu(gpu.clone())] {
        let rates = pollster::block_on(Rates::measure(&device, &Run::default())).expect("measures");
        // a wristwatch does more; a mistake of units does not
        assert!(rates.flops > 1e7 && rates.flops < 1e16 && rates.bytes > 1e7 && rates.bytes < 1e14, "{rates:?}");
    }
    let before = gpu.counters().bytes();
    pollster::block_on(teach_rate(&Device::Gpu(gpu.clone()), &Run::default())).expect("measures");
    assert_eq!(gpu.counters().bytes(), before, "the probe leaves nothing");
}

/// Noise that is made on the device is the pattern that the processor repeats.
#[test]
fn noise_is_the_same_on_both_devices() {
    let (_, gpu) = &devices()[0];
    // more numbers than the pattern has
    for dtype in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1] {
        let product = |device: &Device| {
            let w = device.random("noise", &[1024, 64], dtype).expect("fits");
            let mut rand = Rand::new(3);
            let mut p = Plan::new(device, false);
            let x = p.constant("x", &[1, 64], &rand.numbers(64)).expect("fits");
            let y = device.zeros("y", &[1, 1024], DType::F32).expect("fits");
            ops::linear_into(&mut p, x, &Linear::new(&w, None), &y).expect("records");
            let compiled = p.compile().expect("compiles");
            pollster::block_on(async {
                compiled.run(&Run::default()).await?;
                device.read_f32(&[&y]).await
            })
            .expect("runs")
            .remove(0)
        };
        let (want, got) = (product(&Device::cpu()), product(&Device::Gpu(gpu.clone())));
        let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst < 1e-4, "{dtype}: {worst}");
        assert!(want.iter().any(|v| v.abs() > 0.01) && want.iter().all(|v| v.is_finite()), "{dtype} is noise");
    }
}

#[test]
fn bytes_come_back_when_tensors_go() {
    let gpu = gpu(Options::from_env());
    let device = Device::Gpu(gpu.clone());
    let before = gpu.counters().bytes();
    for _ in 0..3 {
        let (plan, history) = decode_step(&device, 2);
        let compiled = plan.compile().expect("compiles");
        pollster::block_on(compiled.run(&Run::default())).expect("runs");
        let _ = pollster::block_on(device.read_u32(&[&history])).expect("reads");
        let counters = gpu.counters();
        assert!(counters.weight_bytes > 0 && counters.kept_bytes > 0 && counters.temporary_bytes > 0, "{counters:?}");
    }
    let after = gpu.counters();
    assert_eq!(after.weight_bytes, 0, "{after:?}");
    assert!(after.bytes() - before <= 4096, "only staging stays: {after:?}");
}

#[test]
fn streamed_tensors_equal_whole_ones() {
    let options = Options { binding: Some(40_000), ..Options::from_env() };
    let gpu = gpu(options);
    let device = Device::Gpu(gpu.clone());
    for (dtype, cols) in
        [(DType::F32, 37), (DType::F16, 37), (DType::Q8_0, 96), (DType::Q4_0, 96), (DType::Q4_1, 96), (DType::Q4_0, 64)]
    {
        let rows = 333;
        let mut rand = Rand::new(9);
        let bytes: Vec<u8> = (0..rows * dtype.row_bytes(cols).expect("whole blocks"))
            .map(|i| if i % 2 == 1 { rand.bits() as u8 & 0x3b } else { rand.bits() as u8 })
            .collect();
        let x = Rand::new(3).numbers(cols);
        let whole = device.tensor("whole", &[rows, cols], dtype, &bytes).expect("fits");
        for step in [1, 7, 1000, 4096, 100_000] {
            if step == 1 && cols != 64 {
                continue;
            }
            let streamed = pollster::block_on(async {
                let mut upload = gpu.begin("streamed", &[rows, cols], dtype)?;
                for piece in bytes.chunks(step) {
                    upload.write(piece).await?;
                }
                upload.finish()
            })
            .expect("uploads");
            let mut p = Plan::new(&device, false);
            let x = p.constant("x", &[1, cols], &x).expect("fits");
            let results: Vec<Tensor> = [&whole, &streamed]
                .map(|w| {
                    let out = device.zeros("y", &[1, rows], DType::F32).expect("fits");
                    ops::linear_into(&mut p, x, &Linear::new(w, None).act(Act::None), &out).expect("records");
                    out
                })
                .into();
            let compiled = p.compile().expect("compiles");
            let read = pollster::block_on(async {
                compiled.run(&Run::default()).await?;
                device.read_f32(&[&results[0], &results[1]]).await
            })
            .expect("runs");
            let bits = |v: &Vec<f32>| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&read[0]), bits(&read[1]), "{dtype} in pieces of {step}");
        }
    }
    let mut short = gpu.begin("short", &[4, 32], DType::Q8_0).expect("fits");
    pollster::block_on(short.write([0u8; 50].as_slice())).expect("uploads");
    assert_eq!(short.finish().unwrap_err().code, Code::PackInvalid);
    let mut long = gpu.begin("long", &[1, 32], DType::Q8_0).expect("fits");
    let error = pollster::block_on(long.write([0u8; 50].as_slice())).unwrap_err();
    assert_eq!(error.code, Code::PackInvalid);
}

#[test]
fn exhausted_memory_has_a_code() {
    let gpu = gpu(Options { memory: Some(1 << 20), ..Options::from_env() });
    let device = Device::Gpu(gpu);
    let error = device.zeros("too large", &[1024, 1024], DType::F32).unwrap_err();
    assert_eq!(error.code, Code::OutOfMemory, "{error}");
    assert!(error.to_string().starts_with("too large: "), "{error}");
    // what fits still fits
    device.zeros("small", &[1024], DType::F32).expect("fits");
}

#[test]
fn a_lost_device_has_a_code_and_a_closed_one_another() {
    for (ours, code) in [(false, Code::DeviceLost), (true, Code::Closed)] {
        let gpu = gpu(Options::from_env());
        let device = Device::Gpu(gpu.clone());
        let (plan, history) = decode_step(&device, 1);
        let compiled = plan.compile().expect("compiles");
        pollster::block_on(compiled.run(&Run::default())).expect("runs");
        if ours {
            gpu.destroy()
        } else {
            gpu.lose()
        }
        let run = pollster::block_on(compiled.run(&Run::default())).unwrap_err();
        let read = pollster::block_on(device.read_u32(&[&history])).unwrap_err();
        let made = device.zeros("more", &[4], DType::F32).unwrap_err();
        assert_eq!([run.code, read.code, made.code], [code; 3], "{run}; {read}; {made}");
    }
}

#[test]
fn a_run_can_be_stopped() {
    let (_, gpu) = &devices()[0];
    let (plan, _) = decode_step(&Device::Gpu(gpu.clone()), 1);
    let compiled = plan.compile().expect("compiles");
    let cancel = Cancel::default();
    cancel.cancel();
    let mut run = Run::default();
    run.cancel = cancel;
    assert_eq!(pollster::block_on(compiled.run(&run)).unwrap_err().code, Code::Aborted);
}
