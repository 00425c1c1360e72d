//! What every case needs: numbers without surprises, weights of every type, both devices, a comparison.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use groma::Result;
use groma::tensor::gpu::variants::Traits;
use groma::tensor::gpu::{Gpu, Options, lower};
use groma::tensor::plan::Run;
use groma::tensor::{DType, Device, Plan, Tensor, Value, ops};

/// A small generator (PCG): the same numbers everywhere.
pub(crate) struct Rand(u64);

impl Rand {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 18) ^ self.0) >> 27) as u32
    }

    /// In -1..1.
    pub(crate) fn number(&mut self) -> f32 {
        (f64::from(self.bits()) / f64::from(1u32 << 31) - 1.0) as f32
    }

    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }
}

/// A case on one device: its plan is built with these.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) rand: Rand,
    pub(crate) plan: Plan,
    outputs: Vec<Tensor>,
}

impl Bench {
    pub(crate) fn f32(&mut self, shape: &[usize]) -> Value {
        self.scaled(shape, 1.0)
    }

    pub(crate) fn scaled(&mut self, shape: &[usize], scale: f32) -> Value {
        let data: Vec<f32> = self.rand.numbers(shape.iter().product()).iter().map(|v| v * scale).collect();
        self.plan.constant("input", shape, &data).expect("inputs fit")
    }

    pub(crate) fn ids(&mut self, ids: &[u32]) -> Value {
        let t = self.ids_tensor(ids);
        self.plan.resident(&t)
    }

    pub(crate) fn ids_tensor(&mut self, ids: &[u32]) -> Tensor {
        self.device.tensor("ids", &[ids.len()], DType::U32, bytemuck::cast_slice(ids)).expect("ids fit")
    }

    pub(crate) fn vector(&mut self, n: usize) -> Tensor {
        let data = self.rand.numbers(n);
        self.device.tensor_f32("vector", &[n], &data).expect("vectors fit")
    }

    pub(crate) fn weight(&mut self, shape: &[usize], dtype: DType) -> Tensor {
        let n: usize = shape.iter().product();
        let bytes = encode(&mut self.rand, n, dtype);
        self.device.tensor("weight", shape, dtype, &bytes).expect("weights fit")
    }

    /// Keeps a value for the comparison.
    pub(crate) fn keep(&mut self, v: Value) {
        let info = self.plan.info(v).clone();
        let t = self.device.zeros("output", &info.shape, info.dtype).expect("outputs fit");
        ops::copy_into(&mut self.plan, v, &t).expect("the same shape");
        self.outputs.push(t);
    }

    /// Keeps a tensor that the plan writes.
    pub(crate) fn keep_tensor(&mut self, t: &Tensor) {
        self.outputs.push(t.clone());
    }
}

/// Random numbers as files have them; scales around 1/16, so that sums stay small.
fn encode(rand: &mut Rand, n: usize, dtype: DType) -> Vec<u8> {
    let half = |v: f32| half::f16::from_f32(v).to_le_bytes();
    match dtype {
        DType::F32 => bytemuck::cast_slice(&rand.numbers(n)).to_vec(),
        DType::F16 => rand.numbers(n).iter().flat_map(|v| half(*v)).collect(),
        _ => {
            let (quants, minimum) = match dtype {
                DType::Q8_0 => (32, false),
                DType::Q4_0 => (16, false),
                _ => (16, true),
            };
            let unit = if dtype == DType::Q8_0 { 1.0 / 128.0 } else { 1.0 / 8.0 };
            (0..n / 32)
                .flat_map(|_| {
                    let mut block = half((1.0 + rand.number() / 2.0) * unit).to_vec();
                    if minimum {
                        block.extend(half(-1.0 + rand.number() / 4.0));
                    }
                    block.extend((0..quants).map(|_| rand.bits() as u8));
                    block
                })
                .collect()
        }
    }
}

/// A row of a table: its name and how its plan is built.
pub(crate) type Case = (String, Box<dyn Fn(&mut Bench) -> Result<()>>);

/// Software kernels, hardware kernels: both run on any adapter.
pub(crate) fn devices() -> &'static [(&'static str, Gpu)] {
    static ALL: OnceLock<Vec<(&'static str, Gpu)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let open = |software| {
            let options = Options { software_kernels: Some(software), default_limits: true, ..Options::from_env() };
            pollster::block_on(Gpu::create(options)).expect("a Vulkan adapter, such as Mesa's lavapipe, is installed")
        };
        vec![("software", open(true)), ("hardware", open(false))]
    })
}

pub(crate) fn gpu(options: Options) -> Gpu {
    pollster::block_on(Gpu::create(options)).expect("a Vulkan adapter is installed")
}

/// f32 sums in another order: a few units in the last place of the largest term, with head-room for long sums.
pub(crate) const SUMS: f32 = 2e-5;
/// exp and division, which WGSL grants to a few units in the last place.
pub(crate) const FUNCTIONS: f32 = 5e-5;
/// Nothing is computed.
pub(crate) const EXACT: f32 = 0.0;

/// A case's plan, and what it keeps.
fn plan(case: &Case, seed: u64, device: &Device) -> (Plan, Vec<Tensor>) {
    let plan = Plan::new(device, false);
    let mut bench = Bench { device: device.clone(), rand: Rand::new(seed), plan, outputs: Vec::new() };
    (case.1)(&mut bench).unwrap_or_else(|e| panic!("{}: {e}", case.0));
    (bench.plan, bench.outputs)
}

/// What a case's outputs are on a device: f32 numbers, or ids as they are.
pub(crate) fn run(case: &Case, seed: u64, device: &Device, times: usize) -> Vec<Vec<f32>> {
    let (plan, outputs) = plan(case, seed, device);
    pollster::block_on(async {
        let compiled = plan.compile()?;
        compiled.run_times(times, &Run::default()).await?;
        let mut all = Vec::new();
        for t in &outputs {
            if t.dtype() == DType::U32 {
                let ids = device.read_u32(&[t]).await?.remove(0);
                all.push(ids.iter().map(|i| *i as f32).collect());
            } else {
                all.push(device.read_f32(&[t]).await?.remove(0));
            }
        }
        Ok::<_, groma::Error>(all)
    })
    .unwrap_or_else(|e| panic!("{}: {e}", case.0))
}

/// Runs all cases on both devices and compares; tells every failure, not only the first.
pub(crate) fn table(tolerance: f32, cases: Vec<Case>) {
    table_times(tolerance, cases, 1);
}

/// The same where plans are run several times in a row.
pub(crate) fn table_times(tolerance: f32, cases: Vec<Case>, times: usize) {
    let listed = LISTED.with_borrow_mut(|listed| listed.as_mut().map(|all| all.extend(lowered(&cases))).is_some());
    if !listed {
        table_on(devices(), tolerance, cases, times);
    }
}

thread_local! {
    /// The permutations of tables that are listed instead of run.
    static LISTED: RefCell<Option<BTreeSet<&'static str>>> = const { RefCell::new(None) };
}

/// The permutations that the tables of `tests` run, by name; they are not run now.
pub(crate) fn listed(tests: &[fn()]) -> BTreeSet<&'static str> {
    LISTED.set(Some(BTreeSet::new()));
    tests.iter().for_each(|test| test());
    LISTED.take().unwrap_or_default()
}

/// The permutations that cases use with either set of kernels.
fn lowered(cases: &[Case]) -> BTreeSet<&'static str> {
    let sets = [Traits::DEFAULT, Traits { software: false, ..Traits::DEFAULT }];
    sets.into_iter().flat_map(|traits| cases.iter().flat_map(move |case| permutations(case, traits))).collect()
}

/// The permutations that a case uses on an adapter.
pub(crate) fn permutations(case: &Case, traits: Traits) -> Vec<&'static str> {
    let (plan, _) = plan(case, 0, &Device::cpu());
    for step in plan.steps() {
        assert!(step.op.cost(&plan) > 0, "{}: {} costs nothing", case.0, step.op.name());
    }
    lower(&plan, traits).expect("it lowers").dispatches.iter().map(|d| d.call.permutation.name).collect()
}

pub(crate) fn table_on(devices: &[(&'static str, Gpu)], tolerance: f32, cases: Vec<Case>, times: usize) {
    let mut failures = Vec::new();
    for (seed, case) in cases.iter().enumerate() {
        let want = run(case, seed as u64, &Device::cpu(), times);
        for (kind, gpu) in devices {
            let got = run(case, seed as u64, &Device::Gpu(gpu.clone()), times);
            for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                let most = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                let worst = want
                    .iter()
                    .zip(got)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0f32, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v) });
                if want.len() != got.len() || worst > tolerance * most {
                    let at = want.iter().zip(got).position(|(a, b)| b.is_nan() || (a - b).abs() > tolerance * most);
                    let values = at.map(|at| (want[at], got[at]));
                    failures
                        .push(format!("{} [{i}] on {kind}: {worst:e} of {most:e}, first at {at:?} {values:?}", case.0));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} kernels differ from their twins:\n{}", failures.len(), failures.join("\n"));
}

/// A case with a name.
pub(crate) fn case(name: impl Into<String>, build: impl Fn(&mut Bench) -> Result<()> + 'static) -> Case {
    (name.into(), Box::new(build))
}
