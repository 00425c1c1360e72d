//! PyTorch files of before 1.6 (`_use_new_zipfile_serialization=False`): five pickles in a row (a magic number, a
//! version, the writer's byte order, the tensors, the order of the storages), then every storage's length and bytes.
//!
//! candle reads the zip form only, but its pickle machine serves here too; the bytes are ranges of the file.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_core::pickle::{Object, Stack};

use super::source::elements;
use super::weights::{Blob, Entry, Order, Place, Stored};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;

/// The pickled magic number with which such a file begins.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// The pickles of a file of official form take a few hundred bytes a tensor.
const MAX_PICKLES: u64 = 16 << 20;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message)
}

/// Whether a file is of this form.
pub(crate) fn is_legacy(blob: &Blob) -> Result<bool> {
    Ok(blob.len >= MAGIC.len() as u64 && blob.read(0, MAGIC.len())? == MAGIC)
}

/// Raw names and entries; `index` is the file's place among the blobs. Integers are left out.
pub(crate) fn entries(blob: &Blob, index: usize) -> Result<Vec<(String, Entry)>> {
    let head = blob.read(0, blob.len.min(MAX_PICKLES) as usize)?;
    let parsed = catch_unwind(AssertUnwindSafe(|| parse(blob, &head, index)));
    parsed
        .unwrap_or_else(|_| Err(invalid("not a readable PyTorch file: its pickle is malformed")))
        .at(blob.path.display())
}

/// A storage: what its numbers are, and where they lie.
#[derive(Debug)]
struct Storage {
    class: String,
    /// Bytes from the file's begin, and bytes in all.
    at: u64,
    len: u64,
}

/// Bytes of a number of a storage's class.
fn width(class: &str) -> Result<u64> {
    Ok(match class {
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "ByteStorage" | "CharStorage" | "BoolStorage" => 1,
        other => return Err(unknown(other)),
    })
}

fn unknown(class: &str) -> Error {
    invalid("unknown dtype").expected("FloatStorage, HalfStorage or BFloat16Storage", class)
}

fn parse(blob: &Blob, head: &[u8], index: usize) -> Result<Vec<(String, Entry)>> {
    let mut at = Cursor::new(head);
    at.set_position(MAGIC.len() as u64);
    let version = pickle(&mut at)?;
    if version != Object::Int(1001) {
        return Err(invalid("unknown version of PyTorch's older form").expected(1001, format!("{version:?}")));
    }
    if let Object::Dict(facts) = pickle(&mut at)?
        && facts.contains(&(Object::Unicode("little_endian".into()), Object::Bool(false)))
    {
        return Err(invalid("the file was written by a big-endian machine"));
    }
    let tensors = pickle(&mut at)?;
    let order = pickle(&mut at)?;
    let mut storages = BTreeMap::new();
    find(&tensors, 0, &mut |key, class| {
        storages.insert(key.to_owned(), Storage { class: class.to_owned(), at: 0, len: 0 });
    });
    place(blob, at.position(), &order, &mut storages)?;
    let Object::Dict(tensors) = tensors else { return Err(invalid("the file holds no dictionary of tensors")) };
    let mut out = Vec::new();
    for (name, value) in tensors {
        let Object::Unicode(name) = name else { continue };
        if let Some(entry) = entry(&name, value, &storages, index).at(&name)? {
            out.push((name, entry));
        }
    }
    Ok(out)
}

/// The next pickle of the head.
fn pickle(at: &mut Cursor<&[u8]>) -> Result<Object> {
    let mut stack = Stack::empty();
    let broken = |e| invalid(format!("not a readable PyTorch file, or one cut short: {e}"));
    stack.read_loop(at).map_err(broken)?;
    stack.finalize().map_err(broken)
}

/// Tells key and class of every storage that an object speaks of. A tensor of a dictionary lies six deep at most.
fn find(object: &Object, depth: usize, tell: &mut dyn FnMut(&str, &str)) {
    if depth > 8 {
        return;
    }
    match object {
        Object::PersistentLoad(id) => {
            if let Object::Tuple(id) = id.as_ref()
                && let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = id.as_slice()
            {
                tell(key, class_name);
            }
        }
        Object::Tuple(list) | Object::List(list) => list.iter().for_each(|o| find(o, depth + 1, tell)),
        Object::Dict(pairs) => pairs.iter().for_each(|(_, o)| find(o, depth + 1, tell)),
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            find(callable, depth + 1, tell);
            find(args, depth + 1, tell);
        }
        _ => {}
    }
}

/// Walks over the storages behind the pickles, which end at `at`.
fn place(blob: &Blob, mut at: u64, order: &Object, storages: &mut BTreeMap<String, Storage>) -> Result<()> {
    let Object::List(order) = order else { return Err(invalid("the file does not say how its storages lie")) };
    for key in order {
        let storage = match key {
            Object::Unicode(key) => storages.get_mut(key),
            _ => None,
        };
        let storage = storage.ok_or_else(|| invalid("a storage that no tensor speaks of").at(format!("{key:?}")))?;
        let count: [u8; 8] = blob.read(at, 8)?.try_into().map_err(|_| Error::internal("eight bytes"))?;
        let len = u64::from_le_bytes(count).checked_mul(width(&storage.class)?);
        let end = len.and_then(|len| (at + 8).checked_add(len)).filter(|end| *end <= blob.len);
        let (Some(len), Some(end)) = (len, end) else {
            return Err(invalid("the file is cut short: a storage does not fit")
                .expected(format!("at most {} bytes", blob.len - at - 8), format!("{len:?}")));
        };
        (storage.at, storage.len) = (at + 8, len);
        at = end;
    }
    Ok(())
}

fn entry(name: &str, value: Object, storages: &BTreeMap<String, Storage>, index: usize) -> Result<Option<Entry>> {
    let mut class = None;
    find(&value, 0, &mut |_, c| class = Some(c.to_owned()));
    let stored = match class.as_deref() {
        Some("FloatStorage") => Stored::As(DType::F32),
        Some("HalfStorage") => Stored::As(DType::F16),
        Some("BFloat16Storage") => Stored::Bf16,
        Some(other @ ("DoubleStorage" | "ComplexFloatStorage")) => return Err(unknown(other)),
        _ => return Ok(None),
    };
    let info = value
        .into_tensor_info(Object::Unicode(name.to_owned()), Path::new(""))
        .map_err(|e| invalid(format!("a tensor's description is not understood: {e}")))?;
    let Some(info) = info else { return Ok(None) };
    let storage = storages.get(info.path.trim_start_matches('/')).filter(|s| s.at > 0);
    let storage = storage.ok_or_else(|| invalid("the tensor's storage is not in the file"))?;
    if !info.layout.is_contiguous() {
        return Err(invalid("the tensor's rows do not follow each other; save it again with .contiguous()")
            .expected("a contiguous tensor", format!("{:?}", info.layout.stride())));
    }
    let shape = info.layout.dims().to_vec();
    let from = info.layout.start_offset() as u64;
    let bytes = elements(&shape).and_then(|n| n.checked_mul(info.dtype.size_in_bytes())).map(|b| b as u64);
    if bytes.and_then(|b| b.checked_add(from)).is_none_or(|end| end > storage.len) {
        return Err(invalid("the tensor claims more than its storage holds").expected(
            format!("at most {} bytes", storage.len),
            format!("{shape:?} of {:?} from {from} on", info.dtype),
        ));
    }
    Ok(Some(Entry { shape, stored, place: Place::Range { blob: index, at: storage.at + from }, order: Order::Halves }))
}
