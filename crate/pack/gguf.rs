//! The head of a GGUF file, read from its first bytes: which tensors lie where.
//!
//! A reader of our own: candle's takes 32 bytes of memory for every byte of an array, lets names through that are no
//! UTF-8, and divides by an alignment of zero. This one allocates for what it keeps only, and only what is there.

use std::collections::BTreeMap;
use std::ops::Range;

use super::names;
use super::source::{TensorInfo, elements};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;

/// The head of a file lies in this many bytes, or the file is refused.
pub const MAX_HEAD: u64 = 16 << 20;
/// More tensors or keys are no model's.
const MAX_ENTRIES: u64 = 1 << 16;
/// Arrays in arrays, at most.
const MAX_DEPTH: usize = 4;
/// GGUF's bound, and ours.
const MAX_AXES: usize = 4;
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

/// A value of the metadata, as far as anybody asks for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Whole(i64),
    Wholes(Vec<i64>),
    Text(String),
    Texts(Vec<String>),
    /// Of a kind that nobody asks for, or of a key that nobody asks for.
    Passed,
}

/// The head of a GGUF file.
#[derive(Debug)]
pub struct GgufHead {
    /// All tensors in the order in which they lie in the file.
    pub tensors: Vec<GgufTensor>,
    metadata: BTreeMap<String, Value>,
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
        Self::read(&mut Reader::new(bytes), size)
    }

    /// The same from fewer bytes: `None` where the head goes on behind them.
    ///
    /// # Errors
    /// As [`GgufHead::parse`], as far as these bytes show it.
    pub fn begin(bytes: &[u8], size: u64) -> Result<Option<Self>> {
        let mut reader = Reader::new(bytes);
        match Self::read(&mut reader, size) {
            Err(_) if reader.ended => Ok(None),
            other => other.map(Some),
        }
    }

    fn read(at: &mut Reader<'_>, size: u64) -> Result<Self> {
        let bytes = at.bytes;
        if !bytes.starts_with(b"GGUF") {
            return Err(invalid("not a GGUF file")
                .expected("\"GGUF\"", format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(4)]))));
        }
        at.at = 4;
        let version = at.u32()?;
        if !(2..=3).contains(&version) {
            return Err(invalid("unknown GGUF version").expected("2 or 3", version));
        }
        let (tensors, keys) = (at.u64()?, at.u64()?);
        for (what, count) in [("tensors", tensors), ("keys", keys)] {
            if count > MAX_ENTRIES {
                return Err(invalid(format!("the head claims too many {what}"))
                    .expected(format!("at most {MAX_ENTRIES}"), count));
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            let key = at.text("a key")?.to_owned();
            let kind = at.u32()?;
            let value = at.value(kind, is_asked_for(&key), 0).at(&key)?;
            if metadata.contains_key(&key) {
                return Err(invalid("keys of the same name").at(key));
            }
            metadata.insert(key, value);
        }
        let mut list = Vec::new();
        for _ in 0..tensors {
            list.push(at.tensor()?);
        }
        let data = data_offset(at.at as u64, metadata.get("general.alignment"))?;
        let mut out = Vec::with_capacity(list.len());
        for t in list {
            let name = t.name.clone();
            out.push(t.place(&metadata, data, size).at(name)?);
        }
        out.sort_by(|a, b| (a.range.start, &a.name).cmp(&(b.range.start, &b.name)));
        if let Some(pair) = out.windows(2).find(|w| w[0].range.end > w[1].range.start) {
            return Err(invalid("tensors overlap")
                .expected(format!("{} after byte {}", pair[1].name, pair[0].range.end), pair[1].range.start));
        }
        let mut names: Vec<&str> = out.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(invalid("tensors of the same name").at(pair[0]));
        }
        Ok(Self { tensors: out, metadata })
    }

    /// A text of the metadata.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(s)) => Some(s),
            _ => None,
        }
    }

    /// A list of texts of the metadata.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn texts(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Texts(list)) => Some(list),
            _ => None,
        }
    }

    /// A list of whole numbers of the metadata.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wholes(&self, key: &str) -> Option<&[i64]> {
        match self.metadata.get(key) {
            Some(Value::Wholes(list)) => Some(list),
            _ => None,
        }
    }
}

/// Whether a key's value is kept. The tokenizer of a base is read by the converter, which browsers lack.
fn is_asked_for(key: &str) -> bool {
    key == "general.alignment"
        || key.starts_with(SHAPE_KEY)
        || cfg!(not(target_arch = "wasm32")) && key.starts_with("tokenizer.")
}

/// Where the tensors' bytes begin.
fn data_offset(end: u64, alignment: Option<&Value>) -> Result<u64> {
    let alignment = match alignment {
        None => 32,
        Some(Value::Whole(n)) if *n > 0 && n.count_ones() == 1 && *n <= 1 << 20 => *n as u64,
        Some(other) => {
            return Err(invalid("an impossible alignment")
                .expected("a power of two", format!("{other:?}"))
                .at("general.alignment"));
        }
    };
    Ok(end.next_multiple_of(alignment))
}

/// A tensor as the head declares it; the shape has its rows first.
struct Declared {
    name: String,
    stored: Vec<usize>,
    kind: u32,
    offset: u64,
}

impl Declared {
    fn place(self, metadata: &BTreeMap<String, Value>, data: u64, size: u64) -> Result<GgufTensor> {
        let Self { name, stored, kind, offset } = self;
        let dtype = match kind {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            8 => DType::Q8_0,
            other => {
                return Err(
                    invalid("unknown dtype").expected("F32 (0), F16 (1), Q4_0 (2), Q4_1 (3) or Q8_0 (8)", other)
                );
            }
        };
        let overflow = || invalid("the shape overflows").expected("a shape that fits in memory", format!("{stored:?}"));
        let count = elements(&stored).ok_or_else(overflow)?;
        let cols = stored.last().copied().unwrap_or(1);
        let bytes = (count / cols.max(1)).checked_mul(dtype.row_bytes(cols)?).ok_or_else(overflow)? as u64;
        let start = data.checked_add(offset);
        let range = start.and_then(|s| Some(s..s.checked_add(bytes)?)).filter(|r| r.end <= size);
        let range = range.ok_or_else(|| {
            invalid("the tensor lies outside its file")
                .expected(format!("{bytes} bytes from {offset} on"), format!("a file of {size}"))
        })?;
        let shape = match metadata.get(&format!("{SHAPE_KEY}{name}")) {
            None => stored,
            Some(value) => {
                let axes = match value {
                    Value::Wholes(list) if list.len() <= 8 => {
                        list.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>()
                    }
                    _ => None,
                };
                axes.filter(|s| elements(s) == Some(count)).ok_or_else(|| {
                    let got = match value {
                        Value::Wholes(list) if list.len() <= 8 => format!("{list:?}"),
                        _ => "no list of a few whole numbers".into(),
                    };
                    invalid("the shape in the metadata is not the tensor's").expected(format!("{count} elements"), got)
                })?
            }
        };
        Ok(GgufTensor { name: names::from_llama_cpp(&name), info: TensorInfo { shape, dtype }, range })
    }
}

/// Bytes of a scalar of GGUF's kinds; texts and arrays have no fixed size.
fn scalar_bytes(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// A little-endian whole number of one of GGUF's kinds.
fn whole(kind: u32, bytes: &[u8]) -> Option<i64> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let n = u64::from_le_bytes(wide);
    match kind {
        0 | 2 | 4 | 10 => i64::try_from(n).ok(),
        1 => Some(i64::from(n as u8 as i8)),
        3 => Some(i64::from(n as u16 as i16)),
        5 => Some(i64::from(n as u32 as i32)),
        11 => Some(n as i64),
        _ => None,
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether more was asked for than there are.
    ended: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: &bytes[..bytes.len().min(MAX_HEAD as usize)], at: 0, ended: false }
    }

    /// The next bytes, which must be there.
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n));
        self.ended |= taken.is_none();
        let taken = taken.ok_or_else(|| {
            invalid("the head is cut short").expected(format!("{n} bytes from {} on", self.at), rest.len())
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| Error::internal("four bytes"))?))
    }

    fn u64(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Error::internal("eight bytes"))?))
    }

    fn text(&mut self, what: &str) -> Result<&'a str> {
        let len = self.u64()?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|e| invalid(format!("{what} of the head is not UTF-8: {e}")))
    }

    /// A value of the metadata; what is not kept is passed over without memory.
    fn value(&mut self, kind: u32, keep: bool, depth: usize) -> Result<Value> {
        if let Some(size) = scalar_bytes(kind) {
            let bytes = self.take(size as u64)?;
            return Ok(whole(kind, bytes).map_or(Value::Passed, Value::Whole));
        }
        match kind {
            TEXT if keep => Ok(Value::Text(self.text("a text")?.to_owned())),
            TEXT => {
                let len = self.u64()?;
                self.take(len)?;
                Ok(Value::Passed)
            }
            ARRAY if depth < MAX_DEPTH => self.array(keep, depth),
            ARRAY => {
                Err(invalid("arrays of arrays of the head go too deep")
                    .expected(format!("at most {MAX_DEPTH}"), "more"))
            }
            other => Err(invalid("a value of the head is of an unknown kind").expected("0 to 12", other)),
        }
    }

    fn array(&mut self, keep: bool, depth: usize) -> Result<Value> {
        let (kind, len) = (self.u32()?, self.u64()?);
        if let Some(size) = scalar_bytes(kind) {
            let bytes = len.checked_mul(size as u64).ok_or_else(|| invalid("an array of the head overflows"))?;
            let bytes = self.take(bytes)?;
            // Narrower numbers are nobody's: they would grow eightfold here.
            let keep = keep && size >= 4;
            let all = keep.then(|| bytes.chunks_exact(size).map(|b| whole(kind, b)).collect::<Option<Vec<_>>>());
            return Ok(all.flatten().map_or(Value::Passed, Value::Wholes));
        }
        if len > self.bytes.len() as u64 {
            self.ended = true;
            return Err(invalid("an array of the head claims more than there is")
                .expected(format!("at most {} bytes", self.bytes.len()), format!("{len} values")));
        }
        if kind == TEXT && keep {
            let mut texts = Vec::new();
            for _ in 0..len {
                texts.push(self.text("a text")?.to_owned());
            }
            return Ok(Value::Texts(texts));
        }
        for _ in 0..len {
            self.value(kind, false, depth + 1)?;
        }
        Ok(Value::Passed)
    }

    fn tensor(&mut self) -> Result<Declared> {
        let name = self.text("a tensor's name")?.to_owned();
        if name.is_empty() {
            return Err(invalid("a tensor of the head has no name"));
        }
        let axes = self.u32()? as usize;
        if axes > MAX_AXES {
            return Err(invalid("too many axes").expected(format!("at most {MAX_AXES}"), axes).at(name));
        }
        let mut stored = Vec::with_capacity(axes);
        for _ in 0..axes {
            let axis = self.u64()?;
            stored.push(
                usize::try_from(axis).map_err(|_| {
                    invalid("the shape overflows").expected("a shape that fits in memory", axis).at(&name)
                })?,
            );
        }
        stored.reverse();
        Ok(Declared { name, stored, kind: self.u32()?, offset: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_sign() {
        assert_eq!(whole(1, &[0xff]), Some(-1));
        assert_eq!(whole(0, &[0xff]), Some(255));
        assert_eq!(whole(3, &[0xfe, 0xff]), Some(-2));
        assert_eq!(whole(5, &[0xff; 4]), Some(-1));
        assert_eq!(whole(4, &[0xff; 4]), Some(0xffff_ffff));
        assert_eq!(whole(10, &[0xff; 8]), None, "beyond what a shape can be");
        assert_eq!(whole(6, &[0; 4]), None, "a float");
    }

    #[test]
    fn alignments_are_powers_of_two() {
        assert_eq!(data_offset(33, None).unwrap(), 64);
        assert_eq!(data_offset(33, Some(&Value::Whole(16))).unwrap(), 48);
        for bad in [0, -32, 3, 1 << 40] {
            assert!(data_offset(33, Some(&Value::Whole(bad))).is_err(), "{bad}");
        }
        assert!(data_offset(33, Some(&Value::Passed)).is_err());
    }
}
