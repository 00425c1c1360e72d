//! Model files from end to end: checkpoints in, packs out, packs read again, and everything that can be wrong.

mod pack_common;
mod pack_convert;
mod pack_errors;
#[cfg(feature = "cli")]
mod pack_hub;
mod pack_inputs;
mod pack_real;
