//! The head of a GGUF file, read by candle from its first bytes: which tensors lie where. What candle's reader lets
//! pass (duplicates, names that are no UTF-8, an alignment of zero) is refused here.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::names;
use super::source::{TensorInfo, elements};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;

/// The head of a file lies in this many bytes, or the file is refused.
pub const MAX_HEAD: u64 = 16 << 20;
/// Metadata key of a tensor's shape, where that is more than a matrix.
pub(crate) const SHAPE_KEY: &str = "groma.shape.";

/// A tensor in a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Upstream's name.
    pub name: String,
    /// Upstream's shape, and the type of the numbers.
    pub info: TensorInfo,
    /// Its bytes in the file.
    pub range: Range<u64>,
}

/// The head of a GGUF file.
#[derive(Debug)]
pub struct GgufHead {
    /// All tensors in the order in which they lie in the file.
    pub tensors: Vec<GgufTensor>,
    pub(crate) metadata: HashMap<String, Value>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message)
}

impl GgufHead {
    /// Reads the head from the first bytes of a file of `size` bytes; give it at least `MAX_HEAD` or all there are.
    ///
    /// # Errors
    /// `pack-invalid`: foreign or cut files, unknown versions or types, tensors that lie outside the file or are
    /// there twice.
    pub fn parse(bytes: &[u8], size: u64) -> Result<Self> {
        let bytes = &bytes[..bytes.len().min(MAX_HEAD as usize)];
        let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        if !bytes.starts_with(b"GGUF") {
            return Err(invalid("not a GGUF file")
                .expected("\"GGUF\"", format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(4)]))));
        }
        let (Some(first), Some(tensors), Some(keys)) = (number(0), number(8), number(16)) else {
            return Err(invalid("the file is cut short").expected("a head of at least 24 bytes", bytes.len()));
        };
        let version = first >> 32;
        if !(2..=3).contains(&version) {
            return Err(invalid("unknown GGUF version").expected("2 or 3", version));
        }
        refuse_zero_alignment(bytes)?;
        let content =
            Content::read(&mut Cursor::new(bytes)).map_err(|e| invalid(format!("the head can't be read: {e}")))?;
        for (what, want, got) in
            [("tensors", tensors, content.tensor_infos.len()), ("keys", keys, content.metadata.len())]
        {
            if want != got as u64 {
                return Err(invalid(format!("{what} of the same name")).expected(format!("{want} names"), got));
            }
        }
        let mut list = Vec::with_capacity(content.tensor_infos.len());
        for (name, info) in &content.tensor_infos {
            list.push(tensor(name, info, &content, size).at(name)?);
        }
        list.sort_by(|a, b| (a.range.start, &a.name).cmp(&(b.range.start, &b.name)));
        if let Some(pair) = list.windows(2).find(|w| w[0].range.end > w[1].range.start) {
            return Err(invalid("tensors overlap")
                .expected(format!("{} after byte {}", pair[1].name, pair[0].range.end), pair[1].range.start));
        }
        Ok(Self { tensors: list, metadata: content.metadata })
    }

    /// A text of the metadata.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::String(s)) => Some(s),
            _ => None,
        }
    }
}

/// candle divides by `general.alignment`; zero must not reach it.
fn refuse_zero_alignment(bytes: &[u8]) -> Result<()> {
    const KEY: &[u8] = b"general.alignment";
    for at in bytes.windows(KEY.len()).enumerate().filter(|(_, w)| *w == KEY).map(|(i, _)| i + KEY.len()) {
        let Some(tail) = bytes.get(at + 4..) else { continue };
        let width = match bytes[at..at + 4] {
            [0 | 1, 0, 0, 0] => 1,
            [2 | 3, 0, 0, 0] => 2,
            [4 | 5, 0, 0, 0] => 4,
            _ => continue,
        };
        if tail.len() >= width && tail[..width].iter().all(|b| *b == 0) {
            return Err(invalid("an alignment of zero").expected("a power of two", 0).at("general.alignment"));
        }
    }
    Ok(())
}

fn tensor(
    name: &str,
    info: &candle_core::quantized::gguf_file::TensorInfo,
    content: &Content,
    size: u64,
) -> Result<GgufTensor> {
    if name.is_empty() || name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(invalid("a tensor's name is not UTF-8"));
    }
    let dtype = match info.ggml_dtype {
        GgmlDType::F32 => DType::F32,
        GgmlDType::F16 => DType::F16,
        GgmlDType::Q8_0 => DType::Q8_0,
        GgmlDType::Q4_0 => DType::Q4_0,
        GgmlDType::Q4_1 => DType::Q4_1,
        other => return Err(invalid("unknown dtype").expected("F32, F16, Q8_0, Q4_0 or Q4_1", format!("{other:?}"))),
    };
    let stored = info.shape.dims();
    let overflow = || invalid("the shape overflows").expected("a shape that fits in memory", format!("{stored:?}"));
    let count = elements(stored).ok_or_else(overflow)?;
    let row = dtype.row_bytes(stored.last().copied().unwrap_or(1))?;
    let rows = count / stored.last().copied().unwrap_or(1).max(1);
    let bytes = rows.checked_mul(row).ok_or_else(overflow)? as u64;
    let start = content.tensor_data_offset.checked_add(info.offset);
    let range = start.and_then(|s| Some(s..s.checked_add(bytes)?)).filter(|r| r.end <= size);
    let range = range.ok_or_else(|| {
        invalid("the tensor lies outside its file")
            .expected(format!("{bytes} bytes from {} on", info.offset), format!("a file of {size}"))
    })?;
    let shape = match content.metadata.get(&format!("{SHAPE_KEY}{name}")) {
        None => stored.to_vec(),
        Some(value) => {
            let axes = value
                .to_vec()
                .ok()
                .and_then(|v| v.iter().map(|d| usize::try_from(d.to_u64().ok()?).ok()).collect::<Option<Vec<_>>>());
            axes.filter(|s| elements(s) == Some(count)).ok_or_else(|| {
                invalid("the shape in the metadata is not the tensor's")
                    .expected(format!("{count} elements"), format!("{value:?}"))
            })?
        }
    };
    Ok(GgufTensor { name: names::from_llama_cpp(name), info: TensorInfo { shape, dtype }, range })
}
