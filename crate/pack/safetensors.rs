//! The header of a safetensors file: names, types, shapes and byte ranges. Only the header is read, so that a
//! checkpoint of any size opens at once (the `safetensors` crate wants the whole file in memory or mapped).

use serde_json::Value;

use super::source::elements;
use super::weights::{Blob, Entry, Order, Place, Stored};
use crate::error::{Code, Error, Result};
use crate::tensor::DType;

/// The `safetensors` crate's own bound.
const MAX_HEADER: u64 = 100_000_000;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message)
}

/// Raw names and entries of the file; `index` is its place among the blobs. Types that are no weights are left out if
/// they are integers, and refused otherwise.
pub(crate) fn entries(blob: &Blob, index: usize) -> Result<Vec<(String, Entry)>> {
    parse(blob, index).map_err(|e| e.at(blob.path.display()))
}

fn parse(blob: &Blob, index: usize) -> Result<Vec<(String, Entry)>> {
    if blob.len < 8 {
        return Err(invalid("not a safetensors file").expected("at least 8 bytes", blob.len));
    }
    let len = u64::from_le_bytes(blob.read(0, 8)?.try_into().map_err(|_| Error::internal("eight bytes"))?);
    if len > MAX_HEADER || len > blob.len - 8 {
        return Err(invalid("not a safetensors file, or one cut short: the header does not fit")
            .expected(format!("a header of at most {} bytes", MAX_HEADER.min(blob.len - 8)), len));
    }
    let bytes = blob.read(8, len as usize)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| invalid(format!("the header is not UTF-8: {e}")))?;
    let header: Value = serde_json::from_str(text).map_err(|e| invalid(format!("the header is not JSON: {e}")))?;
    let header = header.as_object().ok_or_else(|| invalid("the header is not a JSON object"))?;
    let data = blob.len - 8 - len;
    let mut out = Vec::new();
    for (name, value) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        if let Some(entry) = entry(value, index, 8 + len, data).map_err(|e| e.at(name))? {
            out.push((name.clone(), entry));
        }
    }
    Ok(out)
}

fn entry(value: &Value, blob: usize, start: u64, data: u64) -> Result<Option<Entry>> {
    let dtype = value["dtype"].as_str().ok_or_else(|| invalid("no dtype"))?;
    let numbers = |key: &str| -> Result<Vec<u64>> {
        let list = value[key].as_array().and_then(|a| a.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
        list.ok_or_else(|| invalid(format!("{key} is not a list of whole numbers")))
    };
    let stored = match dtype {
        "F32" => Stored::As(DType::F32),
        "F16" => Stored::As(DType::F16),
        "BF16" => Stored::Bf16,
        "I64" | "I32" | "I16" | "I8" | "U64" | "U32" | "U16" | "U8" | "BOOL" => return Ok(None),
        other => return Err(invalid("unknown dtype").expected("F32, F16 or BF16", other)),
    };
    let shape: Vec<usize> = numbers("shape")?
        .iter()
        .map(|d| usize::try_from(*d))
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("the shape overflows"))?;
    let size = elements(&shape).and_then(|n| n.checked_mul(if stored == Stored::As(DType::F32) { 4 } else { 2 }));
    let size = size
        .ok_or_else(|| invalid("the shape overflows").expected("a shape that fits in memory", format!("{shape:?}")))?;
    let [from, to] = numbers("data_offsets")?[..] else { return Err(invalid("data_offsets is not a pair")) };
    if to > data {
        return Err(invalid("the file is cut short").expected(format!("{to} bytes of data"), data));
    }
    if to.checked_sub(from) != Some(size as u64) {
        return Err(invalid("the byte range does not fit shape and dtype")
            .expected(format!("{size} bytes for {shape:?} {dtype}"), format!("{from}..{to}")));
    }
    Ok(Some(Entry { shape, stored, place: Place::Range { blob, at: start + from }, order: Order::Halves }))
}
