//! A plan made ready: buffers for its temporaries, bind groups, pipelines. Running it allocates nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use web_time::Instant;

use super::counters::{Purpose, add};
use super::device::Gpu;
use super::kernels::{Bind, Kind};
use super::lower::{Recording, lower};
use super::memory::{Held, Reading, gpu_tensor};
use super::slots::Slots;
use crate::error::{At, Error, Result};
use crate::tensor::plan::{Plan, Run, Then};

/// One dispatch, ready.
#[derive(Debug)]
struct Ready {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 2],
    /// The step of the plan that it belongs to.
    step: usize,
}

/// A plan that is ready to run on a GPU.
#[derive(Debug)]
pub struct Program {
    ready: Vec<Ready>,
    /// What every dispatch costs.
    costs: Vec<u64>,
    /// Kept alive: temporaries (shared with other programs), parameters and tables.
    _temporaries: Vec<Arc<Held>>,
    _own: Vec<Held>,
}

/// Parameters of different dispatches lie this far apart: the offset alignment that every device grants.
const ALIGN: usize = 256;

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE;

impl Program {
    /// Makes buffers, bind groups and pipelines.
    ///
    /// # Errors
    /// What an operation says against its kernels; `out-of-memory`, `device-lost`, `closed`.
    pub fn new(gpu: &Gpu, plan: &Plan) -> Result<Self> {
        let recording = lower(plan, gpu.traits())?;
        let slots = Slots::assign(plan, &recording);
        let temporaries = slots.buffers(gpu)?;
        let tables = tables(gpu, &recording)?;
        let (params, offsets) = params(gpu, &recording)?;
        let mut ready = Vec::with_capacity(recording.dispatches.len());
        for (dispatch, offset) in recording.dispatches.iter().zip(&offsets) {
            let call = &dispatch.call;
            let (layout, _) = gpu.layouts(call.permutation.bindings);
            let mut entries = Vec::with_capacity(call.binds.len() + 1);
            for (binding, kind) in call.permutation.bindings {
                let resource = if *kind == Kind::Uniform {
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &params.buffer,
                        offset: *offset as u64,
                        size: wgpu::BufferSize::new(call.params.len().next_multiple_of(16) as u64),
                    })
                } else {
                    let bind = call.binds.iter().find(|(i, _)| i == binding).map(|(_, b)| b);
                    let bind = bind.ok_or_else(|| Error::internal("a kernel lacks a binding"))?;
                    let buffer = match bind {
                        Bind::None => &gpu.0.none,
                        Bind::Table(i) => &tables[*i].buffer,
                        Bind::Scratch(i) => &temporaries[slots.scratch[*i]].buffer,
                        Bind::Tensor(t, slice) => &gpu_tensor(t)?.parts[*slice].1.buffer,
                        Bind::Value(v) => match &plan.info(*v).resident {
                            Some(t) => &gpu_tensor(t)?.parts[0].1.buffer,
                            None => {
                                let slot = slots.values[v.index()];
                                &temporaries[slot.ok_or_else(|| Error::internal("a value is never written"))?].buffer
                            }
                        },
                    };
                    buffer.as_entire_binding()
                };
                entries.push(wgpu::BindGroupEntry { binding: *binding, resource });
            }
            let group = gpu.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(call.permutation.name),
                layout: &layout,
                entries: &entries,
            });
            add(&gpu.0.tally.bind_groups, 1);
            let pipeline = gpu.pipeline(call.permutation);
            ready.push(Ready { pipeline, group, groups: dispatch.groups, step: dispatch.step });
            gpu.check().at(call.permutation.name).at(&plan.steps()[dispatch.step].label)?;
        }
        let mut own = tables;
        own.push(params);
        let costs = recording.dispatches.iter().map(|d| d.cost).collect();
        Ok(Self { ready, costs, _temporaries: temporaries, _own: own })
    }

    /// Dispatches of one run.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.ready.len()
    }

    /// Runs the plan `times` times without looking at the results in between: what changes from run to run lies in
    /// buffers that kernels advance. Work is cut into submits that last a fraction of a second; at most two are under
    /// way. The last one takes the copies and the looks with it.
    ///
    /// # Errors
    /// `aborted`; `out-of-memory`, `device-lost`, `closed`.
    pub async fn run(&self, gpu: &Gpu, ctx: &Run<'_>, times: usize, then: Then<'_>) -> Result<Vec<Vec<u8>>> {
        let all = self.ready.len() * times;
        gpu.settle().await?;
        let reading = self.submits(gpu, ctx, 0..all, Some(then)).await?;
        gpu.nudge();
        match reading {
            Some(reading) => gpu.finish(reading).await,
            None => gpu.check().map(|()| Vec::new()),
        }
    }

    /// Runs the plan once, stage by stage, and waits for each of them.
    ///
    /// # Errors
    /// `aborted`; `out-of-memory`, `device-lost`, `closed`.
    pub async fn run_stages(&self, gpu: &Gpu, ctx: &Run<'_>, plan: &Plan, on: &mut dyn FnMut(&str)) -> Result<()> {
        gpu.settle().await?;
        let mut next = 0;
        while let Some(first) = self.ready.get(next) {
            let stage = plan.steps()[first.step].stage();
            let same = self.ready[next..].iter().take_while(|r| plan.steps()[r.step].stage() == stage).count();
            self.submits(gpu, ctx, next..next + same, None).await?;
            gpu.done(None).await;
            gpu.check()?;
            on(stage);
            next += same;
        }
        Ok(())
    }

    /// Submits dispatches (counted through all repetitions) in slices, the last one with what follows.
    async fn submits(
        &self,
        gpu: &Gpu,
        ctx: &Run<'_>,
        range: Range<usize>,
        then: Option<Then<'_>>,
    ) -> Result<Option<Reading>> {
        let (mut next, end) = (range.start, range.end);
        let mut before: Option<Submitted> = None;
        let mut idle = Instant::now();
        loop {
            ctx.breathe().await?;
            gpu.check()?;
            let (to, cost) = slice(&self.costs, next..end, gpu.budget());
            let mut encoder = self.encode(gpu, next..to);
            let reading = match then.filter(|_| to == end) {
                Some(then) => gpu.follow(&mut encoder, then)?,
                None => None,
            };
            let index = gpu.submit(encoder);
            next = to;
            ctx.progress(next, end);
            if next == end && before.is_none() {
                return Ok(reading);
            }
            let done: Pin<Box<dyn Future<Output = ()>>> = Box::pin(gpu.done(Some(index)));
            if let Some(Submitted { done, start, cost }) = before.take() {
                done.await;
                idle = learn(gpu, cost, start.max(idle));
            }
            if next == end {
                return Ok(reading);
            }
            before = Some(Submitted { done, start: Instant::now(), cost });
        }
    }

    fn encode(&self, gpu: &Gpu, range: Range<usize>) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("plan") };
        let mut encoder = gpu.0.device.create_command_encoder(&descriptor);
        add(&gpu.0.tally.dispatches, range.len() as u64);
        if !range.is_empty() {
            add(&gpu.0.tally.passes, 1);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for i in range {
                let r = &self.ready[i % self.ready.len()];
                pass.set_pipeline(&r.pipeline);
                pass.set_bind_group(0, &r.group, &[]);
                pass.dispatch_workgroups(r.groups[0], r.groups[1], 1);
            }
        }
        encoder
    }
}

/// Makes the pipelines of a plan, so that making it ready does not wait for them.
///
/// # Errors
/// What an operation says against its kernels; `device-lost`, `closed`.
pub fn prepare(gpu: &Gpu, plan: &Plan) -> Result<()> {
    for dispatch in lower(plan, gpu.traits())?.dispatches {
        gpu.pipeline(dispatch.call.permutation);
    }
    gpu.check()
}

/// A submit that is under way.
struct Submitted {
    done: Pin<Box<dyn Future<Output = ()>>>,
    start: Instant,
    cost: u64,
}

/// Where a submit that begins with the first of `range` ends, and what it costs: as many dispatches as stay within
/// `budget`, one at least. `costs` are those of one repetition.
fn slice(costs: &[u64], range: Range<usize>, budget: u64) -> (usize, u64) {
    let mut sum = 0u64;
    for i in range.clone() {
        let with = sum.saturating_add(costs[i % costs.len()]);
        if with > budget && i > range.start {
            return (i, sum);
        }
        sum = with;
    }
    (range.end, sum)
}

/// A slow submit, which is done, teaches how much the next may hold; `start` is when the device began with it. Returns
/// when it was done.
fn learn(gpu: &Gpu, cost: u64, start: Instant) -> Instant {
    let now = Instant::now();
    let ms = u64::try_from((now - start).as_millis()).unwrap_or(u64::MAX);
    if ms >= 10 {
        gpu.learn(cost / ms * 1000);
    }
    now
}

/// Uniforms of all dispatches in one buffer; equal ones lie there once.
fn params(gpu: &Gpu, recording: &Recording) -> Result<(Held, Vec<usize>)> {
    let mut bytes = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    let offsets = recording
        .dispatches
        .iter()
        .map(|d| {
            *known.entry(&d.call.params).or_insert_with(|| {
                let at = bytes.len();
                bytes.extend_from_slice(&d.call.params);
                bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
                at
            })
        })
        .collect();
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let held = gpu.buffer("parameters", bytes.len().max(ALIGN), Purpose::Temporary, usage)?;
    gpu.send(&held.buffer, 0, &bytes);
    Ok((held, offsets))
}

fn tables(gpu: &Gpu, recording: &Recording) -> Result<Vec<Held>> {
    recording
        .tables
        .iter()
        .map(|words| {
            let bytes = (words.len() * 4).next_multiple_of(16).max(16);
            let usage = STORAGE | wgpu::BufferUsages::COPY_DST;
            let held = gpu.buffer("table", bytes, Purpose::Temporary, usage)?;
            gpu.send(&held.buffer, 0, bytemuck::cast_slice(words));
            Ok(held)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::gpu::Options;
    use crate::tensor::gpu::variants::Traits;
    use crate::tensor::{DType, Device, ops};

    /// All ends of a plan's submits.
    fn ends(costs: &[u64], times: usize, budget: u64) -> Vec<usize> {
        let all = costs.len() * times;
        let mut ends = Vec::new();
        while ends.last().copied().unwrap_or(0) < all {
            let next = ends.last().copied().unwrap_or(0);
            let (end, sum) = slice(costs, next..all, budget);
            assert!(end > next, "every submit does something");
            let real: u64 = (next..end).map(|i| costs[i % costs.len()]).sum();
            assert_eq!(sum, real);
            assert!(sum <= budget || end == next + 1, "only a dispatch that is too long by itself is");
            ends.push(end);
        }
        ends
    }

    #[test]
    fn what_is_short_is_one_submit() {
        assert_eq!(ends(&[10, 20, 30], 1, 60), [3]);
        assert_eq!(ends(&[10, 20, 30], 4, 240), [12], "repetitions count together");
    }

    /// Two submits may be under way: who waits for the first does not wait for the second.
    #[test]
    fn gpu_submits_are_waited_for_one_by_one() {
        let gpu = pollster::block_on(Gpu::create(Options::from_env())).expect("a Vulkan adapter is installed");
        let device = Device::Gpu(gpu.clone());
        let random = |shape: &[usize]| device.random("noise", shape, DType::F32).expect("fits");
        let (mut p, w) = (Plan::new(&device, false), random(&[512, 512]));
        for rows in [8, 4096] {
            let x = p.resident(&random(&[rows, 512]));
            ops::linear(&mut p, x, ops::Linear::new(&w, None)).expect("records");
        }
        let program = Program::new(&gpu, &p).expect("compiles");
        let first = gpu.done(Some(gpu.submit(program.encode(&gpu, 0..1))));
        gpu.submit(program.encode(&gpu, 1..2));
        let (tx, second) = flume::bounded(1);
        gpu.0.queue.on_submitted_work_done(move || tx.send(()).expect("the test waits"));
        pollster::block_on(first);
        gpu.nudge();
        assert!(second.is_empty(), "the second was waited for");
        gpu.block();
        assert!(!second.is_empty(), "the second is done in the end");
    }

    #[test]
    fn what_is_no_product_counts_too() {
        let mut p = Plan::new(&Device::cpu(), false);
        // the cells of four levels: each is compared with each
        let x = p.temp(&[21_760, 1]);
        for _ in 0..4 {
            ops::top_k(&mut p, x, 300).expect("records");
        }
        let costs: Vec<u64> = lower(&p, Traits::DEFAULT).expect("lowers").dispatches.iter().map(|d| d.cost).collect();
        // what a software adapter is taken to do in 200 ms before anything is known of it
        assert_eq!(ends(&costs, 1, 800_000_000), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_long_is_cut_within_the_budget() {
        assert_eq!(ends(&[10, 20, 30], 1, 59), [2, 3]);
        assert_eq!(ends(&[10, 20, 30], 2, 40), [2, 4, 5, 6]);
        assert_eq!(ends(&[10, 500, 10], 1, 50), [1, 2, 3], "a dispatch can't be cut");
    }
}
