//! Model files: read (GGUF, safetensors, PyTorch), quantise, convert, write, stream in.
//!
//! Only this room knows file formats. It must never know a stage of the model beyond its list of tensors.

#[cfg(not(target_arch = "wasm32"))]
mod checkpoint;
mod gguf;
mod index;
pub mod manifest;
mod names;
#[cfg(not(target_arch = "wasm32"))]
mod pickle;
#[cfg(not(target_arch = "wasm32"))]
mod reader;
#[cfg(not(target_arch = "wasm32"))]
mod safetensors;
pub mod source;
#[cfg(not(target_arch = "wasm32"))]
mod weights;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::Checkpoint;
pub use gguf::{GgufHead, GgufTensor, MAX_HEAD};
pub use index::{Index, Located};
pub use manifest::{Generation, Manifest, PackFile, Part};
pub use names::{from_llama_cpp, to_llama_cpp};
#[cfg(not(target_arch = "wasm32"))]
pub use reader::Pack;
pub use source::{Source, TensorInfo};
