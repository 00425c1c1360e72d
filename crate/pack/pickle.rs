//! PyTorch's `pytorch_model*.bin`, through candle's pickle reader.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::pickle::PthTensors;
use candle_core::{DType as Candle, Tensor};

use super::source::{elements, matrix};
use super::weights::{Entry, Order, Place, Stored};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;

/// A PyTorch file. The last tensor read is kept, since it is read a few rows at a time.
pub(crate) struct Pickle {
    pub(crate) path: PathBuf,
    tensors: PthTensors,
    last: Mutex<Option<(String, Tensor)>>,
}

impl std::fmt::Debug for Pickle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pickle").field("path", &self.path).finish_non_exhaustive()
    }
}

/// candle's reader indexes into what the pickle claims; a hostile file must be an error all the same.
fn guarded<T>(path: &Path, f: impl FnOnce() -> candle_core::Result<T>) -> Result<T> {
    let broken = |why: String| {
        Error::new(Code::PackInvalid, format!("not a readable PyTorch file (zip form): {why}")).at(path.display())
    };
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(r) => r.map_err(|e| broken(e.to_string())),
        Err(_) => Err(broken("its pickle is malformed".into())),
    }
}

impl Pickle {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let tensors = guarded(path, || PthTensors::new(path, None))?;
        Ok(Self { path: path.to_owned(), tensors, last: Mutex::new(None) })
    }

    /// Raw names and entries; `index` is this file's place among the pickles. Types that are no weights are left out.
    pub(crate) fn entries(&self, index: usize) -> Result<Vec<(String, Entry)>> {
        let size = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        let mut out = Vec::new();
        for (name, info) in self.tensors.tensor_infos() {
            let shape = info.layout.dims().to_vec();
            let stored = match info.dtype {
                Candle::F32 => Stored::As(DType::F32),
                Candle::F16 => Stored::As(DType::F16),
                Candle::BF16 => Stored::Bf16,
                Candle::F64 => {
                    return Err(Error::new(Code::PackInvalid, "unknown dtype")
                        .expected("F32, F16 or BF16", "F64")
                        .at(name)
                        .at(self.path.display()));
                }
                _ => continue,
            };
            let bytes = elements(&shape).and_then(|n| n.checked_mul(info.dtype.size_in_bytes()));
            if bytes.is_none_or(|b| b as u64 > size) {
                return Err(Error::new(Code::PackInvalid, "a tensor claims more than its file holds")
                    .expected(format!("at most {size} bytes"), format!("{shape:?} of {:?}", info.dtype))
                    .at(name)
                    .at(self.path.display()));
            }
            out.push((
                name.clone(),
                Entry {
                    shape,
                    stored,
                    place: Place::Pickled { pickle: index, name: name.clone() },
                    order: Order::Halves,
                },
            ));
        }
        Ok(out)
    }

    /// Some rows of a tensor in its own type.
    pub(crate) fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>> {
        let mut last = self.last.lock().expect("no reader panics");
        if last.as_ref().is_none_or(|(n, _)| n != name) {
            *last = None; // Freed before the next one is read: never two large tensors at a time.
            let tensor = guarded(&self.path, || self.tensors.get(name)).at(name)?;
            let tensor =
                tensor.ok_or_else(|| Error::internal(format!("{name} vanished from {}", self.path.display())))?;
            *last = Some((name.to_owned(), tensor));
        }
        let Some((_, tensor)) = last.as_ref() else { return Err(Error::internal("a tensor that was just read")) };
        let (all, cols) = matrix(tensor.dims());
        let part = tensor.reshape((all, cols))?.narrow(0, rows.start, rows.len())?.flatten_all()?;
        let bytes = match part.dtype() {
            Candle::F32 => part.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Candle::F16 => part.to_vec1::<half::f16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Candle::BF16 => part.to_vec1::<half::bf16>()?.iter().flat_map(|v| v.to_le_bytes()).collect(),
            other => return Err(Error::internal(format!("{name} is {other:?}"))),
        };
        if rows.end == all {
            *last = None;
        }
        Ok(bytes)
    }
}
