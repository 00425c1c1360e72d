//! How fast the kernels are here: run by hand, `cargo test --test kernels rates -- --ignored --nocapture`.
//! docs/performance.md keeps what was measured.

use std::time::Instant;

use groma::Result;
use groma::tensor::gpu::{Gpu, Options};
use groma::tensor::ops::{self, Linear};
use groma::tensor::plan::{Compiled, Run};
use groma::tensor::{DType, Device, Plan};

use crate::harness::{Rand, gpu};

/// Seconds of processor time that this process has used, all threads together: what a busy machine can't hide.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|f| f.parse().ok()).collect();
    // user and system time in ticks of a hundredth of a second
    fields.get(10).zip(fields.get(11)).map_or(0.0, |(u, s)| (u + s) / 100.0)
}

/// Seconds of one run of a product: the median of the clock's, and the processor's.
fn product(gpu: &Gpu, dtype: DType, rows: usize, k: usize, out: usize) -> Result<(f64, f64)> {
    let device = Device::Gpu(gpu.clone());
    let mut rand = Rand::new(1);
    let bytes: Vec<u8> = if dtype == DType::F32 {
        bytemuck::cast_slice(&rand.numbers(out * k)).to_vec()
    } else {
        (0..out * dtype.row_bytes(k)?).map(|_| rand.bits() as u8 & 0x3b).collect()
    };
    let w = device.tensor("weight", &[out, k], dtype, &bytes)?;
    let x = rand.numbers(rows * k);
    let y = device.zeros("y", &[rows, out], DType::F32)?;
    let mut p = Plan::new(&device, false);
    let x = p.constant("x", &[rows, k], &x)?;
    ops::linear_into(&mut p, x, &Linear::new(&w, None), &y)?;
    seconds(&device, &p.compile()?, (400_000_000 / (2 * rows * k * out)).clamp(2, 40))
}

/// The same of attention over `rows` rows of six heads of 64 numbers (DINOv2-small's).
fn attention(gpu: &Gpu, rows: usize) -> Result<(f64, f64)> {
    let device = Device::Gpu(gpu.clone());
    let mut p = Plan::new(&device, false);
    let x = p.constant("x", &[rows, 3 * 384], &Rand::new(1).numbers(rows * 3 * 384))?;
    let columns = |first| ops::Columns { value: x, first };
    ops::attention(&mut p, columns(0), columns(384), columns(768), 6, 64)?;
    seconds(&device, &p.compile()?, 4)
}

/// Seconds of one of `times` runs in a row: the median of the clock's, and the processor's.
fn seconds(device: &Device, compiled: &Compiled, times: usize) -> Result<(f64, f64)> {
    let small = device.zeros("one", &[1], DType::F32)?;
    let mut seen = Vec::new();
    let mut used = 0.0;
    for i in 0..6 {
        if i == 1 {
            used = processor();
        }
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
    Ok((seen[seen.len() / 2], (processor() - used) / (5 * times) as f64))
}

#[expect(clippy::print_stderr, reason = "numbers for whoever runs it")]
fn rates(software: bool) {
    let gpu = gpu(Options { software_kernels: Some(software), ..Options::from_env() });
    eprintln!("{}, {} kernels", gpu.info().name, if software { "software" } else { "hardware" });
    let tell = |what: String, work: f64, unit: &str, s: (f64, f64)| {
        eprintln!("  {what}: {:.2} {unit}, {:.2} a second of one core", work / s.0 / 1e9, work / s.1 / 1e9);
    };
    let work = 4.0 * (384 * 257 * 257) as f64;
    tell("attention of 257 rows".to_owned(), work, "GFLOP/s", attention(&gpu, 257).expect("runs"));
    for dtype in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_0, DType::Q4_1] {
        // two squares, and a layer of DINOv2-small over 448 by 448 pixels
        for (rows, k, out) in [(256, 256, 256), (512, 512, 512), (1025, 384, 1536), (1025, 1536, 384)] {
            let work = 2.0 * (rows * k * out) as f64;
            let s = product(&gpu, dtype, rows, k, out).expect("runs");
            tell(format!("gemm {dtype} {rows}x{k}x{out}"), work, "GFLOP/s", s);
        }
        let bytes = (4096 * dtype.row_bytes(2048).expect("whole")) as f64;
        tell(format!("matvec {dtype} 4096x2048"), bytes, "GB/s", product(&gpu, dtype, 1, 2048, 4096).expect("runs"));
    }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn rates_of_software_kernels() {
    rates(true);
}

#[test]
#[ignore = "measures, asserts nothing"]
fn rates_of_hardware_kernels() {
    rates(false);
}
