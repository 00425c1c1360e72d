//! What every kind of model file looks like to the engine: official tensor names, shapes and bytes.

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::tensor::{DType, Upload};

/// A tensor as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Row-major shape as upstream has it.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: DType,
}

/// Somewhere that weights come from. Names are upstream's (golden/README.md 2.1); aliases are resolved and LoRA pairs
/// merged behind this trait. The rows of `llm.….{q,k}_proj.weight` come in llama.cpp's order (per head, stored row
/// `2j + s` is official row `s * head_dim / 2 + j`), so that rotation pairs are neighbours.
pub trait Source {
    /// Upstream's `config.json` with our extensions.
    fn config(&self) -> &serde_json::Value;

    /// Ids that end an answer, where the source says so besides its configuration.
    fn stops(&self) -> Option<Vec<u32>> {
        None
    }

    /// The bytes of `tokenizer.json`; `None` where the model has no text.
    ///
    /// # Errors
    /// `pack-invalid`, `part-missing`, `io`.
    fn tokenizer(&self) -> Result<Option<Vec<u8>>>;

    /// What is known of a tensor, or `None` where there is no such tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// The file that a tensor lies in, for messages.
    fn file(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// The bytes of a tensor: little endian, in the type that [`Source::info`] names, rows one after the other.
    ///
    /// # Errors
    /// `pack-invalid` for a tensor that is not there or cut short; `part-missing`, `io`.
    fn read(&self, name: &str) -> Result<Vec<u8>>;

    /// Sends the bytes of a tensor on their way to a device. A source whose bytes lie elsewhere sends them from there.
    fn send<'a>(&'a self, name: &'a str, to: &'a mut Upload) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>> {
        Box::pin(async move { to.write(self.read(name)?.as_slice()).await })
    }
}

/// Rows and columns as they are stored and quantised: the first axis, and all others together. What has fewer than two
/// axes is one row.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [n] => (1, *n),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}

/// Number of elements, or `None` where it overflows.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
}
