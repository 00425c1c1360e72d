//! Model files: read (GGUF, safetensors, PyTorch), quantise, convert, write, stream in.
//!
//! Only this room knows file formats. It must never know a stage of the model beyond its list of tensors.

mod gguf;
mod index;
pub mod manifest;
mod names;
pub mod source;

// What follows reads and writes folders; a browser has none.
#[cfg(not(target_arch = "wasm32"))]
mod bases;
#[cfg(not(target_arch = "wasm32"))]
mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
pub mod convert;
#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
mod hub;
#[cfg(not(target_arch = "wasm32"))]
mod legacy;
#[cfg(not(target_arch = "wasm32"))]
mod llama;
#[cfg(not(target_arch = "wasm32"))]
mod pickle;
#[cfg(not(target_arch = "wasm32"))]
mod quantise;
#[cfg(not(target_arch = "wasm32"))]
mod reader;
#[cfg(not(target_arch = "wasm32"))]
mod safetensors;
#[cfg(not(target_arch = "wasm32"))]
mod tensors;
#[cfg(not(target_arch = "wasm32"))]
mod tokenizer;
#[cfg(not(target_arch = "wasm32"))]
mod weights;
#[cfg(not(target_arch = "wasm32"))]
mod write;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::Checkpoint;
pub use gguf::{GgufHead, GgufTensor, MAX_HEAD};
pub use index::{Index, Located};
pub use manifest::{Generation, Manifest, PackFile, Part};
pub use names::{from_llama_cpp, to_llama_cpp};
#[cfg(not(target_arch = "wasm32"))]
pub use quantise::Quant;
#[cfg(not(target_arch = "wasm32"))]
pub use reader::Pack;
#[cfg(all(feature = "cli", not(target_arch = "wasm32")))]
pub(crate) use reader::hex;
pub use source::{Source, TensorInfo};
#[cfg(not(target_arch = "wasm32"))]
pub use tensors::Component;
