//! The model, one file a stage, named as the paper names it.
//!
//! Nothing flows backwards: a stage takes tensors and gives tensors; it knows neither the browser, nor files, nor the
//! stage after it.

pub mod bridge;
pub mod config;
mod config_check;
pub mod decoder;
pub mod encoder;
#[cfg(test)]
mod golden;
pub mod grounding;
mod limit;
pub mod preprocess;
pub mod prompt;
pub mod proposer;
pub mod region_encoder;
pub mod sample;
pub mod select;
pub mod tokens;
pub mod weights;
