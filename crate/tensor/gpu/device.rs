//! The open device, what it holds, and what becomes of errors: everything that goes wrong on a GPU arrives as a value
//! with a code.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::adapter::{AdapterInfo, Options, choose, kind};
use super::counters::{Counters, Purpose, Tally};
use super::kernels::{Kind, Permutation};
use super::memory::Held;
use super::variants::{Traits, WIDE};
use crate::error::{At, Code, Error, Result};

/// An open GPU. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Gpu(pub(super) Arc<Shared>);

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.0.info.name).finish()
    }
}

/// What the device's callbacks leave behind.
#[derive(Debug, Default)]
struct Fate {
    /// We destroyed it.
    ours: AtomicBool,
    lost: Mutex<Option<String>>,
    failure: Mutex<Option<Error>>,
}

pub(super) struct Shared {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) traits: Traits,
    pub(super) tally: Arc<Tally>,
    pub(super) options: Options,
    pub(super) none: wgpu::Buffer,
    /// Floating-point operations a second, as seen in long runs: what one submit may cost.
    pub(super) rate: AtomicU64,
    /// Temporaries that plans share: no two plans run at once, and nothing in them outlives a run.
    pub(super) arena: Mutex<Vec<Weak<Held>>>,
    pub(super) staging: Mutex<Vec<Held>>,
    /// Bytes written since the last submit.
    pub(super) unsent: AtomicU64,
    info: AdapterInfo,
    fate: Arc<Fate>,
    /// Buffers of which the browser has not told yet whether there was memory for them.
    #[cfg(target_arch = "wasm32")]
    asked: Mutex<Vec<Asked>>,
    layouts: Mutex<HashMap<&'static [(u32, Kind)], Layouts>>,
    pipelines: Mutex<HashMap<&'static str, wgpu::ComputePipeline>>,
}

/// What the browser will say of an allocation, and the error if it says no.
#[cfg(target_arch = "wasm32")]
type Asked = (std::pin::Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>, Error);

type Layouts = (wgpu::BindGroupLayout, wgpu::PipelineLayout);

/// A lock that no panic can poison for long: what is inside is whole at any time.
pub(super) fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The largest buffer and binding that are asked for: more than any weight of a 7B model needs helps nobody.
const ENOUGH: u64 = 1 << 30;

/// How long a submit may last on the device, in milliseconds, at the rate that was measured.
const SUBMIT_MS: u64 = 200;

/// No device is taken to be slower, in floating-point operations a second.
const SLOWEST: u64 = 10_000_000;

/// First guesses of a rate, low so that the first submits are short.
const RATE_SOFTWARE: u64 = 4_000_000_000;
const RATE_HARDWARE: u64 = 1_000_000_000_000;

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// `no-webgpu` where there is no such adapter, or it gives no device.
    pub async fn create(options: Options) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = choose(&instance, options.adapter).await?;
        let info = adapter.get_info();
        let offered = adapter.limits();
        let mut limits = wgpu::Limits::default();
        if !options.default_limits {
            limits.max_storage_buffer_binding_size =
                offered.max_storage_buffer_binding_size.min(ENOUGH).max(limits.max_storage_buffer_binding_size);
            limits.max_buffer_size = offered.max_buffer_size.min(ENOUGH).max(limits.max_buffer_size);
            limits.max_compute_workgroup_storage_size =
                offered.max_compute_workgroup_storage_size.min(WIDE).max(limits.max_compute_workgroup_storage_size);
        }
        let descriptor =
            wgpu::DeviceDescriptor { label: Some("groma"), required_limits: limits.clone(), ..Default::default() };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|e| Error::new(Code::NoWebgpu, format!("the adapter {} gives no device: {e}", info.name)))?;
        let fate = Arc::new(Fate::default());
        listen(&device, &fate);
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let info = AdapterInfo {
            name: info.name,
            kind: kind(info.device_type),
            backend: info.backend.to_string(),
            binding: limits.max_storage_buffer_binding_size,
            buffer: limits.max_buffer_size,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup,
        };
        let none = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("none"),
            size: 256,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let traits = Traits {
            software: options.software_kernels.unwrap_or(software),
            binding: options.binding.unwrap_or(u64::MAX).min(info.binding).min(info.buffer),
            shared: info.workgroup_bytes,
        };
        Ok(Self(Arc::new(Shared {
            device,
            queue,
            traits,
            tally: Arc::default(),
            options,
            none,
            rate: AtomicU64::new(if software { RATE_SOFTWARE } else { RATE_HARDWARE }),
            arena: Mutex::default(),
            staging: Mutex::default(),
            unsent: AtomicU64::new(0),
            info,
            fate,
            #[cfg(target_arch = "wasm32")]
            asked: Mutex::default(),
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
        })))
    }

    /// Notes a failure, for whoever checks next.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn fail(&self, message: String) {
        lock(&self.0.fate.failure).get_or_insert(Error::internal(message));
    }

    /// What is known of the adapter.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.0.info
    }

    /// What kernels are chosen by.
    #[must_use]
    pub fn traits(&self) -> Traits {
        self.0.traits
    }

    /// Whether the adapter computes on the CPU.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.0.info.kind == "cpu"
    }

    /// What was done and is held so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.tally.snapshot()
    }

    /// The peak of bytes held is counted from now on.
    pub fn forget_peak(&self) {
        self.0.tally.forget_peak();
    }

    /// Gives everything back. What still runs fails with the code `closed`.
    pub fn destroy(&self) {
        self.0.fate.ours.store(true, Ordering::Relaxed);
        self.0.device.destroy();
    }

    /// Loses the device as a crash would: for tests.
    pub fn lose(&self) {
        self.0.device.destroy();
        self.block();
    }

    /// Lets native callbacks run; the browser's come by themselves.
    pub(super) fn nudge(&self) {
        // a lost device makes polling fail; that is told by `check`
        let _ = self.0.device.poll(wgpu::PollType::Poll);
    }

    /// Fails if anything went wrong since the last look.
    ///
    /// # Errors
    /// `device-lost`, `closed`, `out-of-memory`; `internal` for a call that the device refused.
    pub fn check(&self) -> Result<()> {
        let fate = &self.0.fate;
        if fate.ours.load(Ordering::Relaxed) {
            return Err(Error::new(Code::Closed, "the GPU was closed"));
        }
        if let Some(why) = lock(&fate.lost).as_ref() {
            return Err(Error::new(Code::DeviceLost, format!("the GPU was lost: {why}")));
        }
        match lock(&fate.failure).take() {
            None => Ok(()),
            Some(e) => {
                // an operation on a lost device may be refused before its loss is told
                self.nudge();
                match lock(&fate.lost).as_ref() {
                    Some(why) => Err(Error::new(Code::DeviceLost, format!("the GPU was lost: {why}"))),
                    None => Err(e),
                }
            }
        }
    }

    /// A new buffer, accounted for.
    pub(super) fn buffer(
        &self,
        label: &str,
        bytes: usize,
        purpose: Purpose,
        usage: wgpu::BufferUsages,
    ) -> Result<Held> {
        let size = bytes as u64;
        let held = self.0.tally.total();
        if self.0.options.memory.is_some_and(|most| held + size > most) {
            return Err(out_of_memory(label, size, held));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.0.device.create_buffer(&descriptor);
        let refused = scope.pop();
        let made = Held::new(buffer, size, purpose, &self.0.tally);
        let error = out_of_memory(label, size, held);
        #[cfg(not(target_arch = "wasm32"))]
        if pollster::block_on(refused).is_some() {
            return Err(error);
        }
        // the browser tells it later
        #[cfg(target_arch = "wasm32")]
        lock(&self.0.asked).push((Box::pin(refused), error));
        self.check().at(label)?;
        Ok(made)
    }

    /// Waits until it is known that every buffer made so far has memory, then looks whether anything went wrong.
    #[cfg(target_arch = "wasm32")]
    pub(super) async fn settle(&self) -> Result<()> {
        let asked = std::mem::take(&mut *lock(&self.0.asked));
        for (refused, error) in asked {
            if refused.await.is_some() {
                lock(&self.0.fate.failure).get_or_insert(error);
            }
        }
        self.check()
    }

    /// Looks whether anything went wrong. Natively a buffer without memory is known at once.
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(clippy::unused_async, reason = "the browser's twin waits")]
    pub(super) async fn settle(&self) -> Result<()> {
        self.check()
    }

    /// What one submit may cost.
    pub(super) fn budget(&self) -> u64 {
        self.0.rate.load(Ordering::Relaxed) / 1000 * SUBMIT_MS
    }

    /// Tells how many floating-point operations a second were measured: submits are cut by it.
    pub fn set_rate(&self, flops: u64) {
        self.0.rate.store(flops.max(SLOWEST), Ordering::Relaxed);
    }

    /// A long run teaches the rate.
    pub(super) fn learn(&self, seen: u64) {
        let old = self.0.rate.load(Ordering::Relaxed);
        self.set_rate(old / 2 + seen / 2);
    }

    /// The layouts of a set of bindings.
    pub(super) fn layouts(&self, bindings: &'static [(u32, Kind)]) -> Layouts {
        let mut known = lock(&self.0.layouts);
        known.entry(bindings).or_insert_with(|| layouts(&self.0.device, bindings)).clone()
    }

    /// The pipeline of a permutation, made once a device.
    pub(super) fn pipeline(&self, permutation: &'static Permutation) -> wgpu::ComputePipeline {
        if let Some(p) = lock(&self.0.pipelines).get(permutation.name) {
            return p.clone();
        }
        let (_, layout) = self.layouts(permutation.bindings);
        let pipeline = pipeline(&self.0.device, permutation, &layout);
        lock(&self.0.pipelines).insert(permutation.name, pipeline.clone());
        pipeline
    }

    /// Waits until the newest submit is done, which is `submit`, or everything so far. What is submitted between the call
    /// and the waiting is waited for only where no submit is named.
    pub(super) fn done(&self, submit: Option<wgpu::SubmissionIndex>) -> impl Future<Output = ()> + use<> {
        let (tx, rx) = flume::bounded(1);
        self.0.queue.on_submitted_work_done(move || {
            // whoever waited may be gone
            let _ = tx.send(());
        });
        let gpu = self.clone();
        async move {
            gpu.wait(submit);
            // an error means that the device is gone; `check` says so
            let _ = rx.recv_async().await;
        }
    }

    /// Waits for everything that was submitted.
    pub(super) fn block(&self) {
        self.wait(None);
    }

    /// Natively nothing happens unless somebody waits; in the browser waiting is forbidden and needless.
    fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) {
        // failures are told by `check`
        let _ = self.0.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
    }
}

fn out_of_memory(label: &str, bytes: u64, held: u64) -> Error {
    let mib = |n: u64| n as f64 / f64::from(1 << 20);
    let message = format!("the GPU has no memory for {:.1} MiB more ({:.1} MiB are in use)", mib(bytes), mib(held));
    Error::new(Code::OutOfMemory, message).at(label)
}

/// Leaves what the device says where `check` finds it.
fn listen(device: &wgpu::Device, fate: &Arc<Fate>) {
    let lost = fate.clone();
    device.set_device_lost_callback(move |_, message| {
        lock(&lost.lost).get_or_insert(message);
    });
    let failed = fate.clone();
    device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
        let error = match e {
            wgpu::Error::OutOfMemory { .. } => Error::new(Code::OutOfMemory, "the GPU is out of memory"),
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                Error::internal(format!("the GPU refused a call: {description}"))
            }
        };
        // the first one is the cause
        lock(&failed.failure).get_or_insert(error);
    }));
}

fn layouts(device: &wgpu::Device, bindings: &[(u32, Kind)]) -> Layouts {
    let entries: Vec<wgpu::BindGroupLayoutEntry> = bindings
        .iter()
        .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
            binding: *binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    Kind::Uniform => wgpu::BufferBindingType::Uniform,
                    Kind::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Kind::Write => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let group =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some("groma"), entries: &entries });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some("groma"),
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    (group, pipeline)
}

fn pipeline(device: &wgpu::Device, permutation: &Permutation, layout: &wgpu::PipelineLayout) -> wgpu::ComputePipeline {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(permutation.name),
        source: wgpu::ShaderSource::Wgsl(permutation.wgsl.into()),
    };
    // with all of wgpu's checks of indices and loops, as in browsers: leaving them out was measured and gains nothing
    let module = device.create_shader_module(descriptor);
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(permutation.name),
        layout: Some(layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // kernels write workgroup memory before they read it
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}
