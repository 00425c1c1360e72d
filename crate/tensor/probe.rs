//! What a device can do at most, measured in a moment: what `bench` holds every stage against, and what submits are cut by.

use web_time::Instant;

use super::cpu::{self, CpuIo};
use super::gpu::kernels::probe;
use super::gpu::{Lower, size};
use super::ops::{self, Linear};
use super::plan::{Look, Op, Plan, Run, Then, Value};
use super::{DType, Device, units};
use crate::error::{Error, Result};

/// What a device can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// f32 operations a second, additions and multiplications counted apart.
    pub flops: f64,
    /// Bytes read a second.
    pub bytes: f64,
}

/// A measurement lasts at least so long, in seconds: less is noise.
const LONG: f64 = 0.05;

/// Numbers of the buffer that is read: far more than caches hold.
const NUMBERS: usize = 16 << 20;

impl Rates {
    /// Measures a device, in a fraction of a second. On a GPU: a kernel of nothing but multiply-adds and one that sums
    /// 64 MiB. On the processor: the product of 512x512 matrices on all its threads, and the sum of 64 MiB on one.
    ///
    /// # Errors
    /// `aborted`; `out-of-memory`, `device-lost`, `closed`.
    pub async fn measure(device: &Device, run: &Run<'_>) -> Result<Self> {
        if let Device::Cpu(_) = device {
            let a = vec![0.5; 512 * 512];
            let (square, mut y) = (cpu::Matrix::new(&a, 512, 512, 512), vec![0.0; 512 * 512]);
            let flops = repeat(&mut || {
                cpu::multiply(square, square.transposed(), 1.0, &mut y, 512);
                Ok(())
            })?;
            let x = vec![0.5; NUMBERS];
            // the twins' own way of reading a row
            let bytes = repeat(&mut || {
                std::hint::black_box(cpu::dot(&x[..NUMBERS / 2], &x[NUMBERS / 2..]));
                Ok(())
            })?;
            return Ok(Self { flops: 2.0 * 512f64.powi(3) / flops, bytes: NUMBERS as f64 * 4.0 / bytes });
        }
        let x = device.random("probe", &[NUMBERS], DType::F32)?;
        let mut rounds = 64;
        let flops = loop {
            let multiply = Probe { stream: false, threads: 1 << 16, rounds };
            let seconds = multiply.seconds(device, &x, run).await?;
            if seconds >= LONG || rounds >= 1 << 20 {
                break 64.0 * multiply.threads as f64 * rounds as f64 / seconds;
            }
            rounds *= 4;
        };
        let stream = Probe { stream: true, threads: 1 << 14, rounds: 0 };
        let seconds = stream.seconds(device, &x, run).await?;
        Ok(Self { flops, bytes: x.bytes() as f64 / seconds })
    }
}

/// Seconds of one call, once it was called for long enough.
fn repeat(work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let (start, mut times) = (Instant::now(), 0);
    while times < 3 || start.elapsed().as_secs_f64() < LONG {
        work()?;
        times += 1;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(times))
}

/// Measures how fast products are on a GPU and tells it, so that submits are cut well from the first photo on.
///
/// # Errors
/// `aborted`; `out-of-memory`, `device-lost`, `closed`.
pub async fn teach_rate(device: &Device, run: &Run<'_>) -> Result<()> {
    let Device::Gpu(gpu) = device else { return Ok(()) };
    let side = 256;
    let weight = device.random("probe", &[side, side], DType::F32)?;
    let mut p = Plan::new(device, false);
    let x = p.resident(&device.random("probe", &[side, side], DType::F32)?);
    let y = ops::linear(&mut p, x, Linear::new(&weight, None))?;
    let out = device.zeros("probe", &[side, side], DType::F32)?;
    ops::copy_into(&mut p, y, &out)?;
    let compiled = p.compile()?;
    let one = [Look { tensor: &out, first: 0, count: 1 }];
    let then = Then { copies: &[], looks: &one };
    compiled.run_then::<f32>(1, then, run).await?;
    let mut times = 1;
    let rate = loop {
        let start = Instant::now();
        compiled.run_then::<f32>(times, then, run).await?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= 0.02 || times >= 4096 {
            break 2.0 * (side * side * side * times) as f64 / seconds.max(1e-9);
        }
        times *= 4;
    };
    gpu.set_rate(rate as u64);
    Ok(())
}

/// One of the two kernels, as an operation that only a GPU has.
#[derive(Clone, Copy, Debug)]
struct Probe {
    stream: bool,
    threads: usize,
    rounds: usize,
}

#[derive(Debug)]
struct ProbeOp(Probe, Value, Value);

impl Probe {
    /// Seconds of one run, the best of three.
    async fn seconds(self, device: &Device, x: &super::Tensor, run: &Run<'_>) -> Result<f64> {
        let out = device.zeros("probe.out", &[4 * self.threads], DType::F32)?;
        let mut p = Plan::new(device, false);
        let (x, y) = (p.resident(x), p.resident(&out));
        p.push(ProbeOp(self, x, y), &[x], &[y]);
        let compiled = p.compile()?;
        let one = [Look { tensor: &out, first: 0, count: 1 }];
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            let start = Instant::now();
            compiled.run_then::<f32>(1, Then { copies: &[], looks: &one }, run).await?;
            // the first run's pipeline is cold: it is never the best
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    }
}

impl Op for ProbeOp {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        let Self(probe, x, _) = self;
        if probe.stream { units::moved(plan, &[*x]) } else { 64 * (probe.threads * probe.rounds) as u64 }
    }

    fn cpu(&self, _io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        Err(Error::internal("the processor is not probed by kernels"))
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let Self(probe, x, y) = self;
        let kernel = probe::Probe {
            work: if probe.stream { probe::Work::Stream } else { probe::Work::Multiply },
            x: lower.read(*x)?,
            y: lower.write(*y)?,
            params: probe::Params {
                count: size(lower.len(*x) / 4)?,
                threads: size(probe.threads)?,
                rounds: size(probe.rounds)?,
            },
        };
        lower.each(kernel, probe.threads)
    }
}
