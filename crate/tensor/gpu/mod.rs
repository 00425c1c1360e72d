//! The GPU: adapter and limits, buffers, the recorder, programs, and what `build.rs` made of the shaders.
//!
//! Operations live in `ops/`, each with the dispatches it records; nothing here knows an operation.

mod adapter;
mod counters;
mod device;
pub mod kernels;
pub mod layout;
mod lower;
mod memory;
mod program;
mod random;
#[cfg(target_arch = "wasm32")]
mod raw;
mod slots;
mod upload;
pub mod variants;

pub use adapter::{AdapterInfo, Options, Want};
pub use counters::{Counters, Purpose};
pub use device::Gpu;
pub(crate) use lower::size;
pub use lower::{Dispatch, Lower, Recording, Scrap, Scratch, WeightSlice, lower};
pub use memory::GpuTensor;
pub use program::{Program, prepare};
pub use slots::Slots;
pub use upload::{Bytes, Upload};
