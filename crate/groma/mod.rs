//! The model, one file a stage, named as the paper names it.
//!
//! Nothing flows backwards: a stage takes tensors and gives tensors; it knows neither the browser, nor files, nor the
//! stage after it.

pub mod config;
#[cfg(test)]
mod golden;
pub mod grounding;
pub mod preprocess;
pub mod prompt;
pub mod sample;
pub mod select;
pub mod tokens;
