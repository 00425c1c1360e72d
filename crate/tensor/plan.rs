//! Record, then run: a plan is a list of operations on values, which can be printed, counted and checked before any
//! device sees it. Stages record; a device runs.
//!
//! Values are temporaries of the plan or *resident* tensors that outlive it (inputs, caches, outputs).

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::blocks::DType;
use super::cpu::{self, CpuIo};
use super::device::{Device, Number, Tensor, check_looks};
use super::gpu;
use crate::error::{Error, Result};

/// A value of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// Its place in [`Plan::values`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value before it exists.
#[derive(Clone, Debug)]
pub struct Info {
    /// Row-major shape; maps are `[height * width, channels]` or `[height, width, channels]`.
    pub shape: Vec<usize>,
    /// f32 or u32.
    pub dtype: DType,
    /// The tensor it is, where it outlives the plan.
    pub resident: Option<Tensor>,
}

/// An operation: its meaning (the CPU twin) and its speed (the kernels), side by side in one file of `ops/`.
pub trait Op: Debug {
    /// The operation's name, as its file's.
    fn name(&self) -> &'static str;

    /// What one run costs (see [`units`](super::units)): by it twins are cut into units and dispatches gathered in
    /// submits. More than [`Op::flops`], which counts no moves, no functions and nothing over a cache.
    fn cost(&self, plan: &Plan) -> u64;

    /// Into how many units the twin's work is cut, so that a slow machine can breathe and stop between them.
    fn units(&self, _plan: &Plan) -> usize {
        1
    }

    /// The twin: computes unit `unit` of the values it writes.
    ///
    /// # Errors
    /// `internal` where a tensor is not the processor's.
    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()>;

    /// The kernels: records dispatches.
    ///
    /// # Errors
    /// `out-of-memory` for what can't be bound, `internal` for sizes beyond kernels' counting.
    fn gpu(&self, lower: &mut gpu::Lower<'_>) -> Result<()>;

    /// Floating-point operations of one run (multiplications and additions counted apart), for `bench`.
    fn flops(&self, _plan: &Plan) -> u64 {
        0
    }

    /// Bytes of weights that one run reads, for `bench`.
    fn weight_bytes(&self) -> u64 {
        0
    }

    /// What an operation over a cache does where `past` positions stand in it already, for `bench`.
    fn cache_work(&self, _past: usize) -> CacheWork {
        CacheWork::default()
    }
}

/// The part of an operation's work that grows with what a cache holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheWork {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of the cache that must be read at least: each number once.
    pub ideal_bytes: u64,
    /// Bytes of it that the kernels read.
    pub bytes: u64,
}

/// One recorded operation.
#[derive(Debug)]
pub struct Step {
    /// What it does.
    pub op: Box<dyn Op>,
    /// The values it reads.
    pub reads: Vec<Value>,
    /// The values it writes (a value that is updated in place is in both lists).
    pub writes: Vec<Value>,
    /// The stage and layer it belongs to: `encoder.3`.
    pub label: String,
}

impl Step {
    /// The stage it belongs to: `encoder.3` is a layer of `encoder`.
    #[must_use]
    pub fn stage(&self) -> &str {
        self.label.split('.').next().unwrap_or_default()
    }
}

/// How a tapped value is brought into the goldens' form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapForm {
    /// As it is.
    Rows,
    /// `[pixels, channels]` is shown as `[channels, pixels]`.
    ChannelsFirst,
    /// `[batch, pixels, channels]` is shown as `[batch, channels, pixels]`.
    BatchChannelsFirst {
        /// Rows of the outermost axis.
        batch: usize,
    },
}

/// A copy of a value, taken where the stage computed it.
#[derive(Clone, Debug)]
pub struct Tap {
    /// The stage tensor's name: `vis.h3`.
    pub name: String,
    /// The copy.
    pub tensor: Tensor,
    /// How the goldens show it.
    pub form: TapForm,
}

/// A recorded list of operations.
#[derive(Debug)]
pub struct Plan {
    device: Device,
    values: Vec<Info>,
    steps: Vec<Step>,
    taps: Vec<Tap>,
    tapped: bool,
    given: HashMap<String, Tensor>,
    label: String,
}

impl Plan {
    /// An empty plan for `device`; `tapped` plans copy what [`Plan::tap`] names.
    #[must_use]
    pub fn new(device: &Device, tapped: bool) -> Self {
        Self {
            device: device.clone(),
            values: Vec::new(),
            steps: Vec::new(),
            taps: Vec::new(),
            tapped,
            given: HashMap::new(),
            label: String::new(),
        }
    }

    /// Values that whoever compares stages gives instead of what the stages compute.
    #[must_use]
    pub fn with_given(mut self, given: HashMap<String, Tensor>) -> Self {
        self.given = given;
        self
    }

    /// The value given for a stage tensor, if any; stages ask where a near tie would change all that follows.
    pub fn given(&mut self, name: &str) -> Option<Value> {
        let tensor = self.given.get(name)?.clone();
        Some(self.resident(&tensor))
    }

    /// The device it is for.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> &[Info] {
        &self.values
    }

    /// All steps in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All taps in order (none where the plan is not tapped).
    #[must_use]
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// What is known of a value.
    #[must_use]
    pub fn info(&self, v: Value) -> &Info {
        &self.values[v.index()]
    }

    /// The shape of a value.
    #[must_use]
    pub fn shape(&self, v: Value) -> &[usize] {
        &self.info(v).shape
    }

    /// Rows of a value: all axes but the last.
    #[must_use]
    pub fn rows(&self, v: Value) -> usize {
        let s = self.shape(v);
        s[..s.len() - 1].iter().product()
    }

    /// Length of the last axis of a value.
    #[must_use]
    pub fn cols(&self, v: Value) -> usize {
        *self.shape(v).last().expect("no value is a scalar")
    }

    /// Names what the following steps belong to.
    pub fn stage(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// A new f32 temporary.
    pub fn temp(&mut self, shape: &[usize]) -> Value {
        self.value(Info { shape: shape.to_vec(), dtype: DType::F32, resident: None })
    }

    /// A new f32 temporary of another value's shape.
    pub fn temp_like(&mut self, v: Value) -> Value {
        let shape = self.shape(v).to_vec();
        self.temp(&shape)
    }

    /// A new u32 temporary.
    pub fn temp_u32(&mut self, shape: &[usize]) -> Value {
        self.value(Info { shape: shape.to_vec(), dtype: DType::U32, resident: None })
    }

    /// A tensor that outlives the plan, as a value of it. The same tensor is always the same value.
    pub fn resident(&mut self, tensor: &Tensor) -> Value {
        let known = self.values.iter().position(|i| i.resident.as_ref().is_some_and(|r| r.same(tensor)));
        if let Some(at) = known {
            return Value(u32::try_from(at).expect("plans are small"));
        }
        self.value(Info { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), resident: Some(tensor.clone()) })
    }

    /// A constant that the host computed.
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `closed`.
    pub fn constant(&mut self, label: &str, shape: &[usize], data: &[f32]) -> Result<Value> {
        let t = self.device.clone().tensor_f32(label, shape, data)?;
        Ok(self.resident(&t))
    }

    fn value(&mut self, info: Info) -> Value {
        self.values.push(info);
        Value(u32::try_from(self.values.len() - 1).expect("plans are small"))
    }

    /// Records an operation.
    pub fn push(&mut self, op: impl Op + 'static, reads: &[Value], writes: &[Value]) {
        self.steps.push(Step {
            op: Box::new(op),
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            label: self.label.clone(),
        });
    }

    /// Copies a value for whoever compares stages; nothing at all where the plan is not tapped.
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `closed`.
    pub fn tap(&mut self, name: impl Into<String>, v: Value, form: TapForm) -> Result<()> {
        if self.tapped {
            let (name, info) = (name.into(), self.info(v).clone());
            let tensor = self.device.clone().zeros(&name, &info.shape, info.dtype)?;
            super::ops::copy::copy_into(self, v, &tensor)?;
            self.taps.push(Tap { name, tensor, form });
        }
        Ok(())
    }

    /// For every value the last step that touches it (`usize::MAX` where none does).
    #[must_use]
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.values.len()];
        for (s, step) in self.steps.iter().enumerate() {
            for v in step.reads.iter().chain(&step.writes) {
                last[v.index()] = s;
            }
        }
        last
    }

    /// Makes the kernels that it needs, and nothing else: the first plan of its kind is then ready sooner.
    ///
    /// # Errors
    /// What an operation says against its kernels; `device-lost`, `closed`.
    pub fn prepare(&self) -> Result<()> {
        match &self.device {
            Device::Cpu(_) => Ok(()),
            Device::Gpu(device) => gpu::prepare(device, self),
        }
    }

    /// Makes the plan ready to run any number of times: on a GPU all buffers, bind groups and pipelines.
    ///
    /// # Errors
    /// What an operation says against its kernels; `out-of-memory`, `device-lost`, `closed`.
    pub fn compile(self) -> Result<Compiled> {
        let gpu = match &self.device {
            Device::Cpu(_) => None,
            Device::Gpu(device) => Some(gpu::Program::new(device, &self)?),
        };
        Ok(Compiled { plan: self, gpu })
    }
}

/// Numbers of a tensor that the host looks at.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The tensor, f32 or u32.
    pub tensor: &'a Tensor,
    /// The first number.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl<'a> Look<'a> {
    /// The whole tensor.
    #[must_use]
    pub fn all(tensor: &'a Tensor) -> Self {
        Self { tensor, first: 0, count: tensor.len() }
    }
}

/// What follows a plan's last step; on a GPU it rides on the same submit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then<'a> {
    /// Tensors that are copied into others of their size.
    pub copies: &'a [(Tensor, Tensor)],
    /// What the host waits for.
    pub looks: &'a [Look<'a>],
}

/// A plan that is ready to run.
#[derive(Debug)]
pub struct Compiled {
    plan: Plan,
    gpu: Option<gpu::Program>,
}

impl Compiled {
    /// Runs it: on the CPU to the end; on a GPU everything is submitted, and only looks wait.
    ///
    /// # Errors
    /// `aborted`; what a twin says; on a GPU `out-of-memory`, `device-lost`, `closed`.
    pub async fn run(&self, ctx: &Run<'_>) -> Result<()> {
        self.run_times(1, ctx).await
    }

    /// Runs it several times in a row (decode steps advance their own state).
    ///
    /// # Errors
    /// `aborted`; what a twin says; on a GPU `out-of-memory`, `device-lost`, `closed`.
    pub async fn run_times(&self, times: usize, ctx: &Run<'_>) -> Result<()> {
        self.run_then::<u32>(times, Then::default(), ctx).await.map(drop)
    }

    /// The same, then copies, then waits for numbers: on a GPU with the last submit, so that a short plan is one submit
    /// and one wait. `T` is the looks' number type.
    ///
    /// # Errors
    /// The same, and `internal` for looks that are not what their tensors hold.
    pub async fn run_then<T: Number>(&self, times: usize, then: Then<'_>, ctx: &Run<'_>) -> Result<Vec<Vec<T>>> {
        match (&self.gpu, self.plan.device()) {
            (Some(program), Device::Gpu(device)) => {
                check_looks::<T>(then.looks)?;
                let raw = program.run(device, ctx, times, then).await?;
                Ok(raw.iter().map(|b| bytemuck::pod_collect_to_vec(b)).collect())
            }
            (_, device @ Device::Cpu(numerics)) => {
                for _ in 0..times {
                    cpu::run(&self.plan, *numerics, ctx, &mut |_| ()).await?;
                }
                for (from, to) in then.copies {
                    device.copy(from, to, from.len())?;
                }
                device.look(then.looks).await
            }
            (None, Device::Gpu(_)) => Err(Error::internal("a GPU plan without a program")),
        }
    }

    /// Runs it stage by stage and tells `on` the name of each when it is done, on a GPU too: for `bench`, not for speed.
    ///
    /// # Errors
    /// `aborted`; what a twin says; on a GPU `out-of-memory`, `device-lost`, `closed`.
    pub async fn run_stages(&self, ctx: &Run<'_>, on: &mut dyn FnMut(&str)) -> Result<()> {
        match (&self.gpu, self.plan.device()) {
            (Some(program), Device::Gpu(device)) => program.run_stages(device, ctx, &self.plan, on).await,
            (_, Device::Cpu(numerics)) => {
                let steps = self.plan.steps();
                let mut done = |s: usize| {
                    let stage = steps[s].stage();
                    if steps.get(s + 1).is_none_or(|next| next.stage() != stage) {
                        on(stage);
                    }
                };
                cpu::run(&self.plan, *numerics, ctx, &mut done).await
            }
            (None, Device::Gpu(_)) => Err(Error::internal("a GPU plan without a program")),
        }
    }

    /// The recorded plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The GPU's side, where there is one.
    #[must_use]
    pub fn program(&self) -> Option<&gpu::Program> {
        self.gpu.as_ref()
    }
}

/// A flag that stops what runs. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A future that lets others run; each front has its own.
pub type Breath = Pin<Box<dyn Future<Output = ()>>>;

/// What a run is told from outside: when to stop, whom to tell, how to let others run.
#[derive(Clone, Default)]
pub struct Run<'a> {
    /// Stops the run between two units.
    pub cancel: Cancel,
    /// Called with (steps done, steps in all).
    pub progress: Option<&'a dyn Fn(usize, usize)>,
    /// Lets the event loop run; asked for when 25 ms have passed since the last time.
    pub breath: Option<Rc<dyn Fn() -> Breath>>,
    last: Rc<Cell<Option<web_time::Instant>>>,
}

/// The longest time without a breath, in milliseconds. A unit may itself take 20 ms (`units.rs`); together they stay
/// below 50.
const BREATH_MS: u128 = 25;

impl Run<'_> {
    /// Lets others run if it is time, then fails if a stop was asked for.
    ///
    /// # Errors
    /// `aborted`.
    pub async fn breathe(&self) -> Result<()> {
        if let Some(breath) = &self.breath {
            let now = web_time::Instant::now();
            let due = self.last.get().is_none_or(|t| now.duration_since(t).as_millis() >= BREATH_MS);
            if due {
                breath().await;
                self.last.set(Some(web_time::Instant::now()));
            }
        }
        if self.cancel.is_cancelled() { Err(Error::aborted()) } else { Ok(()) }
    }

    pub(crate) fn progress(&self, done: usize, all: usize) {
        if let Some(f) = self.progress {
            f(done, all);
        }
    }
}

impl Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}
