//! A plan made ready: buffers for its temporaries, bind groups, pipelines. Running it allocates nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::adapter::{Gpu, lock};
use super::counters::{Purpose, add};
use super::kernels::{Bind, Kind};
use super::lower::{Recording, lower};
use super::memory::{Held, gpu_tensor};
use crate::error::{At, Error, Result};
use crate::tensor::plan::{Plan, Run};

/// One dispatch, ready.
#[derive(Debug)]
struct Ready {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: [u32; 2],
    /// Floating-point operations, as far as is known.
    flops: u64,
}

/// A plan that is ready to run on a GPU.
#[derive(Debug)]
pub struct Program {
    ready: Vec<Ready>,
    flops: u64,
    names: Vec<&'static str>,
    /// Kept alive: temporaries (shared with other programs), parameters and tables.
    _temporaries: Vec<Arc<Held>>,
    _own: Vec<Held>,
}

/// How long a submit may last on the device, in milliseconds.
const SUBMIT_MS: u64 = 120;

/// Parameters of different dispatches lie this far apart: the offset alignment that every device grants.
const ALIGN: usize = 256;

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE;

impl Program {
    /// Makes buffers, bind groups and pipelines.
    pub fn new(gpu: &Gpu, plan: &Plan) -> Result<Self> {
        let recording = lower(plan, gpu.traits())?;
        let slots = Slots::assign(plan, &recording);
        let temporaries = slots.buffers(gpu)?;
        let tables = tables(gpu, &recording)?;
        let (params, offsets) = params(gpu, &recording)?;
        let mut ready = Vec::with_capacity(recording.dispatches.len());
        let shares = shares(plan, &recording);
        for ((dispatch, offset), flops) in recording.dispatches.iter().zip(&offsets).zip(shares) {
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
            ready.push(Ready { pipeline, group, groups: dispatch.groups, flops });
            gpu.check().at(call.permutation.name).at(&plan.steps()[dispatch.step].label)?;
        }
        let names = recording.dispatches.iter().map(|d| d.call.permutation.name).collect();
        let mut own = tables;
        own.push(params);
        let flops = ready.iter().map(|r| r.flops).sum();
        Ok(Self { ready, flops, names, _temporaries: temporaries, _own: own })
    }

    /// Dispatches of one run.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.ready.len()
    }

    /// The kernels of one run, in order.
    #[must_use]
    pub fn kernels(&self) -> &[&'static str] {
        &self.names
    }

    /// Runs the plan once.
    pub async fn run(&self, gpu: &Gpu, ctx: &Run<'_>) -> Result<()> {
        self.run_times(gpu, ctx, 1).await
    }

    /// Runs the plan several times without looking at the results in between: what changes from run to run lies in
    /// buffers that kernels advance. Work is cut into submits that last a fraction of a second; at most two are under way.
    pub async fn run_times(&self, gpu: &Gpu, ctx: &Run<'_>, times: usize) -> Result<()> {
        let all = self.ready.len() * times;
        let mut next = 0;
        let mut before = None;
        while next < all {
            ctx.breathe().await?;
            gpu.check()?;
            let budget = gpu.0.rate.load(Ordering::Relaxed) / 1000 * SUBMIT_MS;
            let (end, flops) = self.slice(next, all, budget);
            self.submit(gpu, next, end);
            next = end;
            ctx.progress(next, all);
            if next == all && before.is_none() {
                break;
            }
            let done = gpu.done();
            if let Some((waiting, start, flops)) = before.take() {
                let waiting: std::pin::Pin<Box<dyn Future<Output = ()>>> = waiting;
                waiting.await;
                learn(gpu, flops, start);
            }
            if next < all {
                let done: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(done);
                before = Some((done, web_time::Instant::now(), flops));
            }
        }
        gpu.nudge();
        gpu.check()
    }

    /// Where a submit that begins at `next` ends.
    fn slice(&self, next: usize, all: usize, budget: u64) -> (usize, u64) {
        if self.flops.saturating_mul((all / self.ready.len().max(1)) as u64) <= budget && next == 0 {
            return (all, self.flops);
        }
        let mut flops = 0;
        for i in next..all {
            let more = self.ready[i % self.ready.len()].flops;
            if i > next && flops + more > budget {
                return (i, flops);
            }
            flops += more;
        }
        (all, flops)
    }

    fn submit(&self, gpu: &Gpu, from: usize, to: usize) {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("plan") };
        let mut encoder = gpu.0.device.create_command_encoder(&descriptor);
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for i in from..to {
                let r = &self.ready[i % self.ready.len()];
                pass.set_pipeline(&r.pipeline);
                pass.set_bind_group(0, &r.group, &[]);
                pass.dispatch_workgroups(r.groups[0], r.groups[1], 1);
            }
        }
        let tally = &gpu.0.tally;
        add(&tally.dispatches, (to - from) as u64);
        add(&tally.passes, 1);
        add(&tally.submits, 1);
        gpu.0.queue.submit([encoder.finish()]);
    }
}

/// A slow submit teaches how much the next may hold.
fn learn(gpu: &Gpu, flops: u64, start: web_time::Instant) {
    let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if ms >= 10 && flops > 0 {
        let seen = flops / ms * 1000;
        let old = gpu.0.rate.load(Ordering::Relaxed);
        gpu.0.rate.store((old / 2 + seen / 2).max(100_000_000), Ordering::Relaxed);
    }
}

/// The operations of every step, shared by its dispatches.
fn shares(plan: &Plan, recording: &Recording) -> Vec<u64> {
    let mut count = vec![0u64; plan.steps().len()];
    for d in &recording.dispatches {
        count[d.step] += 1;
    }
    recording.dispatches.iter().map(|d| plan.steps()[d.step].op.flops(plan) / count[d.step]).collect()
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

/// Which buffer every temporary lies in. Values whose lives do not overlap share one.
#[derive(Debug)]
pub struct Slots {
    /// Bytes of every buffer.
    pub sizes: Vec<usize>,
    /// The buffer of every value that is a temporary and is used.
    pub values: Vec<Option<usize>>,
    /// The buffer of every scratch value.
    pub scratch: Vec<usize>,
}

impl Slots {
    /// Assigns buffers by liveness: a buffer is free again after the last step that touches its value.
    #[must_use]
    pub fn assign(plan: &Plan, recording: &Recording) -> Self {
        let last = plan.last_uses();
        let mut slots = Slots {
            sizes: Vec::new(),
            values: vec![None; plan.values().len()],
            scratch: vec![0; recording.scratch.len()],
        };
        let mut free: Vec<usize> = Vec::new();
        for (s, step) in plan.steps().iter().enumerate() {
            let mut ends = Vec::new();
            for v in step.writes.iter().chain(&step.reads) {
                let info = plan.info(*v);
                if info.resident.is_none() && slots.values[v.index()].is_none() {
                    let bytes = info.shape.iter().product::<usize>() * 4;
                    slots.values[v.index()] = Some(slots.take(&mut free, bytes));
                }
                let slot = slots.values[v.index()].filter(|_| last[v.index()] == s);
                ends.extend(slot.filter(|slot| !ends.contains(slot)));
            }
            for (i, scratch) in recording.scratch.iter().enumerate().filter(|(_, x)| x.step == s) {
                slots.scratch[i] = slots.take(&mut free, scratch.bytes);
                ends.push(slots.scratch[i]);
            }
            free.extend(ends);
        }
        slots
    }

    /// The free buffer that fits best; the largest one grows where none is large enough.
    fn take(&mut self, free: &mut Vec<usize>, bytes: usize) -> usize {
        let bytes = bytes.next_multiple_of(16).max(16);
        let fits = free.iter().enumerate().filter(|(_, s)| self.sizes[**s] >= bytes);
        let best = fits
            .min_by_key(|(_, s)| self.sizes[**s])
            .or_else(|| free.iter().enumerate().max_by_key(|(_, s)| self.sizes[**s]));
        if let Some((at, slot)) = best.map(|(at, s)| (at, *s)) {
            free.swap_remove(at);
            self.sizes[slot] = self.sizes[slot].max(bytes);
            return slot;
        }
        self.sizes.push(bytes);
        self.sizes.len() - 1
    }

    /// The buffers, taken from the arena that all programs share where one fits.
    fn buffers(&self, gpu: &Gpu) -> Result<Vec<Arc<Held>>> {
        let mut arena = lock(&gpu.0.arena);
        arena.retain(|w| w.strong_count() > 0);
        let mut taken: Vec<Arc<Held>> = Vec::new();
        let mut out: Vec<Option<Arc<Held>>> = vec![None; self.sizes.len()];
        // large ones choose first
        let mut order: Vec<usize> = (0..self.sizes.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(self.sizes[*i]));
        for i in order {
            let bytes = self.sizes[i] as u64;
            let mut fits: Vec<Arc<Held>> = arena.iter().filter_map(std::sync::Weak::upgrade).collect();
            fits.retain(|h| h.bytes >= bytes && !taken.iter().any(|t| Arc::ptr_eq(t, h)));
            let held = match fits.into_iter().min_by_key(|h| h.bytes) {
                Some(h) => h,
                None => {
                    let h = Arc::new(gpu.buffer("temporary", self.sizes[i], Purpose::Temporary, STORAGE)?);
                    arena.push(Arc::downgrade(&h));
                    h
                }
            };
            taken.push(held.clone());
            out[i] = Some(held);
        }
        Ok(out.into_iter().flatten().collect())
    }
}
