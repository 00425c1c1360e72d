//! Groma on WebGPU: a photo and a question go in, a grounded answer comes out.
//!
//! ```text
//! photo ─ preprocess ─ encoder ─┬─ proposer ─ select ─ region encoder ─┐
//!                               └─ merge ─ bridge ─────────────────────┴─ prompt ─ decoder ─ grounding ─ answer
//! ```
//!
//! [`groma`] holds the stages in the paper's words, [`tensor`] the numbers and the devices they live on, [`pack`] the
//! model files, [`session`] what is kept between questions. `cli` and `web` are thin fronts.

#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub mod cli;
pub mod error;
pub mod groma;
pub mod pack;
pub mod session;
pub mod tensor;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use error::{Code, Error, Result};
