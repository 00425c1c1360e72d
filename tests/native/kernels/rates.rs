//! How fast the kernels are here: run by hand, `cargo test --test kernels rates -- --ignored --nocapture`.
//! docs/performance.md keeps what was measured.

use std::time::Instant;

use groma::Result;
use groma::tensor::gpu::{Gpu, Options};
use groma::tensor::ops::{self, Linear};
use groma::tensor::plan::Run;
use groma::tensor::{DType, Device, Plan};

use crate::harness::{Rand, gpu};

/// Seconds of one run of a product, the median of five.
fn product(gpu: &Gpu, dtype: DType, rows: usize, k: usize, out: usize) -> Result<f64> {
    let device = Device::Gpu(gpu.clone());
    let mut rand = Rand::new(1);
    let bytes: Vec<u8> = (0..out * dtype.row_bytes(k)?).map(|_| rand.bits() as u8 & 0x3b).collect();
    let w = device.tensor("weight", &[out, k], dtype, &bytes)?;
    let x = rand.numbers(rows * k);
    let y = device.zeros("y", &[rows, out], DType::F32)?;
    let mut p = Plan::new(&device, false);
    let x = p.constant("x", &[rows, k], &x)?;
    ops::linear_into(&mut p, x, &Linear::new(&w, None), &y)?;
    let compiled = p.compile()?;
    let small = device.zeros("one", &[1], DType::F32)?;
    let times = 4;
    let mut seen = Vec::new();
    for i in 0..6 {
        let start = Instant::now();
        pollster::block_on(async {
            compiled.run_times(times, &Run::default()).await?;
            device.read_f32(&[&small]).await
        })?;
        if i > 0 {
            seen.push(start.elapsed().as_secs_f64() / times as f64);
        }
    }
    seen.sort_by(f64::total_cmp);
    Ok(seen[seen.len() / 2])
}

#[test]
#[ignore = "measures, asserts nothing"]
fn rates() {
    for (kind, software) in [("software", true), ("hardware", false)] {
        for checks in [true, false] {
            let gpu = gpu(Options { software_kernels: Some(software), checks: Some(checks), ..Options::from_env() });
            eprintln!("{}, {kind} kernels, checks {checks}", gpu.info().name);
            for dtype in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0] {
                for side in [256, 512] {
                    let s = product(&gpu, dtype, side, side, side).expect("runs");
                    let rate = 2.0 * (side * side * side) as f64 / s / 1e9;
                    eprintln!("  gemm {dtype} {side}^3: {rate:.1} GFLOP/s");
                }
                let bytes = (4096 * dtype.row_bytes(2048).expect("whole")) as f64;
                let s = product(&gpu, dtype, 1, 2048, 4096).expect("runs");
                eprintln!("  matvec {dtype} 4096x2048: {:.2} GB/s, {:.2} GFLOP/s", bytes / s / 1e9, 16.8e-3 / s);
            }
        }
    }
}
