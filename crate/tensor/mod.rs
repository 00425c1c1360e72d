//! Where numbers live: element types, tensors on a device, plans of operations and their two ways to run.
//!
//! Only this room knows wgpu and candle's types. It must never know a stage of the model, a file format or a front.
#![cfg_attr(
    target_arch = "wasm32",
    expect(clippy::arc_with_non_send_sync, reason = "in the browser wgpu's objects stay on one thread")
)]

pub mod blocks;
pub mod cpu;
pub mod device;
pub mod gpu;
mod int8;
pub mod ops;
pub mod plan;
pub mod probe;
pub mod units;
mod upload;

pub use blocks::DType;
pub use device::{Device, Number, Numerics, Tensor};
pub use plan::{Plan, Value};
pub use upload::{Bytes, Upload};
