//! Model files: read (GGUF, safetensors, PyTorch), quantise, convert, write, stream in.
//!
//! Only this room knows file formats. It must never know a stage of the model beyond its list of tensors.

pub mod source;

pub use source::{Source, TensorInfo};
