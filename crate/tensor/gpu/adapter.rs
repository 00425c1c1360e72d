//! Which adapter is opened, and what is said of it.

use crate::error::{Code, Error, Result};

/// Which kind of adapter is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// The best there is.
    #[default]
    Any,
    /// One that computes on the CPU.
    Software,
    /// A real one.
    Hardware,
}

/// How a GPU is opened. Every fall-back can be forced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which adapter.
    pub adapter: Want,
    /// Ask for WebGPU's default limits, whatever the adapter offers.
    pub default_limits: bool,
    /// Pretend that a readback takes this much longer.
    pub map_latency_ms: u64,
    /// Fail allocations beyond this many bytes in all.
    pub memory: Option<u64>,
    /// Pretend that no more than this many bytes can be bound at once.
    pub binding: Option<u64>,
    /// Choose kernels as if the adapter were a software one, or a real one.
    pub software_kernels: Option<bool>,
}

impl Options {
    /// What the environment asks for: `GROMA_ADAPTER=software|hardware`, `GROMA_LIMITS=default`,
    /// `GROMA_KERNELS=software|hardware`, `GROMA_MAP_LATENCY_MS`, `GROMA_GPU_MEMORY` and `GROMA_BINDING` (bytes).
    #[must_use]
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            adapter: match get("GROMA_ADAPTER").as_str() {
                "software" => Want::Software,
                "hardware" => Want::Hardware,
                _ => Want::Any,
            },
            default_limits: get("GROMA_LIMITS") == "default",
            map_latency_ms: get("GROMA_MAP_LATENCY_MS").parse().unwrap_or(0),
            memory: get("GROMA_GPU_MEMORY").parse().ok(),
            binding: get("GROMA_BINDING").parse().ok(),
            software_kernels: match get("GROMA_KERNELS").as_str() {
                "software" => Some(true),
                "hardware" => Some(false),
                _ => None,
            },
        }
    }
}

/// What is said of an adapter.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// Its name, where it has one.
    pub name: String,
    /// `cpu`, `integrated`, `discrete`, `virtual` or `other`.
    pub kind: &'static str,
    /// The interface behind: `vulkan`, `metal`, `dx12`, `webgpu`.
    pub backend: String,
    /// The most bytes that can be bound at once.
    pub binding: u64,
    /// The largest buffer.
    pub buffer: u64,
    /// Storage buffers that a kernel may bind.
    pub storage_buffers: u32,
    /// Bytes that a workgroup may share.
    pub workgroup_bytes: u32,
    /// Threads of a workgroup at most.
    pub workgroup_threads: u32,
}

/// The word of a kind of adapter.
pub(super) fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Other => "other",
    }
}

/// The best adapter that is wanted.
#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn choose(instance: &wgpu::Instance, want: Want) -> Result<wgpu::Adapter> {
    let mut all = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let cpu = |a: &wgpu::Adapter| a.get_info().device_type == wgpu::DeviceType::Cpu;
    match want {
        Want::Any => {}
        Want::Software => all.retain(cpu),
        Want::Hardware => all.retain(|a| !cpu(a)),
    }
    let rank = |a: &wgpu::Adapter| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    all.into_iter().min_by_key(rank).ok_or_else(|| none(want))
}

/// The adapter that the browser gives.
#[cfg(target_arch = "wasm32")]
pub(super) async fn choose(instance: &wgpu::Instance, want: Want) -> Result<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        force_fallback_adapter: want == Want::Software,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).await.map_err(|_| none(want))?;
    if want == Want::Hardware && adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        return Err(none(want));
    }
    Ok(adapter)
}

fn none(want: Want) -> Error {
    let what = match want {
        Want::Any => "no GPU adapter was found",
        Want::Software => "no software adapter was found",
        Want::Hardware => "no adapter but software ones was found",
    };
    Error::new(Code::NoWebgpu, what)
}
