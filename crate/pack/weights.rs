//! Tensors of any origin under official names: byte ranges of files, read a few rows at a time, with the order of
//! query and key rows and LoRA pairs (golden/README.md 2.3) settled on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::names;
use super::pickle::Pickle;
use super::reader::hex;
use super::source::{TensorInfo, matrix};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;
use crate::tensor::blocks;

/// A file that ranges are read from.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    file: Mutex<File>,
}

impl Blob {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |e: std::io::Error| Error::new(Code::Io, format!("can't read the file: {e}")).at(path.display());
        let file = File::open(path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        Ok(Self { path: path.to_owned(), len, file: Mutex::new(file) })
    }

    /// Reads `len` bytes from `at` on; nothing is allocated before the range is known to lie in the file.
    pub(crate) fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let end = at.checked_add(len as u64).filter(|end| *end <= self.len);
        let Some(end) = end else {
            return Err(Error::new(Code::PackInvalid, "the file ends too early")
                .expected(format!("{len} bytes from {at} on"), format!("{} bytes in all", self.len))
                .at(self.path.display()));
        };
        let mut out = vec![0; len];
        let mut file = self.file.lock().expect("no reader panics");
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut out)).map_err(|e| {
            Error::new(Code::Io, format!("can't read bytes {at} to {end}: {e}")).at(self.path.display())
        })?;
        Ok(out)
    }
}

impl Blob {
    /// SHA-256 of the whole file, in hexadecimal digits.
    pub(crate) fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.len {
            let n = (self.len - at).min(1 << 20);
            hash.update(self.read(at, n as usize)?);
            at += n;
        }
        Ok(hex(&hash.finalize()))
    }
}

/// How a file stores numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// As it is handed on.
    As(DType),
    /// bfloat16, handed on as f32.
    Bf16,
}

impl Stored {
    /// The type under which it is handed on.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Stored::As(d) => d,
            Stored::Bf16 => DType::F32,
        }
    }

    pub(crate) fn row_bytes(self, cols: usize) -> Result<usize> {
        match self {
            Stored::As(d) => d.row_bytes(cols),
            Stored::Bf16 => DType::F16.row_bytes(cols),
        }
    }
}

/// Where a tensor's numbers lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Rows one after the other.
    Range { blob: usize, at: u64 },
    /// f32, stored as `[columns, rows]`.
    Transposed { blob: usize, at: u64 },
    /// Pieces that make the whole: offset and bytes.
    Joined { blob: usize, pieces: Vec<(u64, usize)> },
    /// A tensor of a PyTorch file.
    Pickled { pickle: usize, name: String },
}

/// The order of the rows of query and key projections in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Upstream's: rotation pairs lie half a head apart.
    Halves,
    /// llama.cpp's: rotation pairs are neighbours.
    Neighbours,
}

/// A tensor of some file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) shape: Vec<usize>,
    pub(crate) stored: Stored,
    pub(crate) place: Place,
    pub(crate) order: Order,
}

/// Heads of the decoder, which say how query and key rows are permuted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) key: usize,
    pub(crate) width: usize,
}

impl Heads {
    /// From `config.json`, with the defaults of golden/README.md 1.
    pub(crate) fn of(config: &serde_json::Value) -> Self {
        let llm = &config["llm_cfg"];
        let number = |key: &str| llm[key].as_u64().and_then(|n| usize::try_from(n).ok());
        let query = number("num_attention_heads").unwrap_or(32);
        let key = number("num_key_value_heads").unwrap_or(query);
        let width = number("head_dim").unwrap_or_else(|| number("hidden_size").unwrap_or(4096) / query.max(1));
        Self { query, key, width }
    }

    /// Width of the heads of `name`, where its rows are to be permuted.
    fn permuted(self, name: &str) -> Option<(usize, usize)> {
        let heads = match name.strip_prefix("llm.model.layers.")?.split_once('.')?.1 {
            "self_attn.q_proj.weight" => self.query,
            "self_attn.k_proj.weight" => self.key,
            _ => return None,
        };
        Some((heads, self.width))
    }
}

/// The official row behind row `row` of llama.cpp's order.
pub(crate) fn official_row(row: usize, head_width: usize) -> usize {
    let (head, within) = (row / head_width, row % head_width);
    head * head_width + (within % 2) * (head_width / 2) + within / 2
}

/// The pair of matrices that is added to a third.
#[derive(Clone, Debug, Default)]
struct Lora {
    a: Option<Entry>,
    b: Option<Entry>,
    /// A tensor that is of LoRA's, but neither half of a pair.
    strange: Option<String>,
}

/// Tensors under official names.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) pickles: Vec<Pickle>,
    tensors: BTreeMap<String, Entry>,
    lora: BTreeMap<String, Lora>,
    heads: Heads,
    alpha: Option<f64>,
}

impl Weights {
    pub(crate) fn new(config: &serde_json::Value) -> Self {
        Self { heads: Heads::of(config), alpha: config["lora_alpha"].as_f64(), ..Self::default() }
    }

    /// Takes a tensor of a checkpoint in. Of an official name and an alias the official one wins.
    pub(crate) fn insert(&mut self, raw: &str, entry: Entry) {
        let Some(name) = names::official(raw) else { return };
        if let Some((stem, part)) = name.split_once(".lora_") {
            // PEFT writes an adapter's name (`default`) between the two in a whole model's state.
            let lora = self.lora.entry(format!("{stem}.weight")).or_default();
            match part {
                "A.weight" | "A.default.weight" => lora.a = Some(entry),
                "B.weight" | "B.default.weight" => lora.b = Some(entry),
                _ => lora.strange = Some(raw.to_owned()),
            }
        } else if names::is_official(raw) || !self.tensors.contains_key(&name) {
            self.tensors.insert(name, entry);
        }
    }

    /// Takes a tensor in unless there is one of that name.
    pub(crate) fn insert_base(&mut self, name: String, entry: Entry) {
        self.tensors.entry(name).or_insert(entry);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Checks what can be checked without reading numbers: that LoRA pairs fit and have something to be added to, and
    /// that query and key rows are whole heads.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, lora) in &self.lora {
            let broken = |what: &str| Error::new(Code::PackInvalid, format!("a LoRA pair {what}")).at(name);
            if let Some(strange) = &lora.strange {
                return Err(
                    broken("is of a form that is not known").expected("….lora_A.weight and ….lora_B.weight", strange)
                );
            }
            let (Some(a), Some(b)) = (&lora.a, &lora.b) else { return Err(broken("lacks one half")) };
            let w = self.tensors.get(name).ok_or_else(|| broken("has no matrix to be added to"))?;
            match (&w.shape[..], &a.shape[..], &b.shape[..]) {
                ([out, cols], [r, a_cols], [b_out, b_r]) if a_cols == cols && b_out == out && r == b_r && *r > 0 => {}
                (w, a, b) => {
                    return Err(broken("does not fit its matrix")
                        .expected(format!("[r, in] and [out, r] for {w:?}"), format!("{a:?} and {b:?}")));
                }
            }
        }
        for (name, entry) in &self.tensors {
            if let Some((heads, width)) = self.heads.permuted(name) {
                let (rows, _) = matrix(&entry.shape);
                if width == 0 || !width.is_multiple_of(2) || heads.checked_mul(width) != Some(rows) {
                    return Err(Error::new(Code::PackInvalid, "the rows are not the config's heads")
                        .expected(format!("{heads} heads of an even width {width}"), format!("{rows} rows"))
                        .at(name)
                        .at(self.file(name).unwrap_or_default()));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn info(&self, name: &str) -> Option<TensorInfo> {
        let entry = names::resolve(&self.tensors, name)?;
        let dtype = if self.lora.contains_key(name) { DType::F32 } else { entry.stored.dtype() };
        Some(TensorInfo { shape: entry.shape.clone(), dtype })
    }

    /// Name of the file that a tensor lies in.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        let path = match &names::resolve(&self.tensors, name)?.place {
            Place::Range { blob, .. } | Place::Transposed { blob, .. } | Place::Joined { blob, .. } => {
                &self.blobs[*blob].path
            }
            Place::Pickled { pickle, .. } => &self.pickles[*pickle].path,
        };
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    /// All bytes of a tensor.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let info = self.info(name).ok_or_else(|| missing(name))?;
        self.read_rows(name, 0..matrix(&info.shape).0)
    }

    /// The bytes of some rows (as [`matrix`] counts them), in the type of [`Weights::info`].
    pub(crate) fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>> {
        let entry = names::resolve(&self.tensors, name).ok_or_else(|| missing(name))?;
        let heads = self.heads.permuted(name);
        let bytes = match heads {
            Some((_, width)) if entry.order == Order::Halves => {
                self.permuted_rows(entry, rows.clone(), width).at(name)?
            }
            _ => self.entry_rows(entry, rows.clone()).at(name)?,
        };
        match self.lora.get(name) {
            Some(lora) => self.merged(entry, lora, &bytes, rows, heads.map(|h| h.1)).at(name),
            None => Ok(bytes),
        }
    }

    /// Rows in llama.cpp's order of a tensor stored in upstream's: whole heads are read, the wanted rows picked.
    fn permuted_rows(&self, entry: &Entry, rows: Range<usize>, width: usize) -> Result<Vec<u8>> {
        let row_bytes = entry.stored.dtype().row_bytes(matrix(&entry.shape).1)?;
        let first = rows.start / width * width;
        let heads = self.entry_rows(entry, first..rows.end.next_multiple_of(width))?;
        let mut out = Vec::with_capacity(rows.len() * row_bytes);
        for row in rows {
            let at = (official_row(row, width) - first) * row_bytes;
            out.extend_from_slice(&heads[at..at + row_bytes]);
        }
        Ok(out)
    }

    /// Rows in the file's order, bf16 widened.
    fn entry_rows(&self, entry: &Entry, rows: Range<usize>) -> Result<Vec<u8>> {
        let (all, cols) = matrix(&entry.shape);
        let row_bytes = entry.stored.row_bytes(cols)?;
        if rows.start > rows.end || rows.end > all {
            return Err(Error::internal(format!("rows {rows:?} of {all}")));
        }
        let bytes = match &entry.place {
            Place::Range { blob, at } => {
                self.blobs[*blob].read(at + (rows.start * row_bytes) as u64, rows.len() * row_bytes)?
            }
            Place::Transposed { blob, at } => {
                let stored = self.blobs[*blob].read(*at, all * cols * 4)?;
                let mut out = Vec::with_capacity(rows.len() * row_bytes);
                for row in rows {
                    for col in 0..cols {
                        let i = (col * all + row) * 4;
                        out.extend_from_slice(&stored[i..i + 4]);
                    }
                }
                out
            }
            Place::Joined { blob, pieces } => {
                let mut whole = Vec::with_capacity(all * row_bytes);
                for (at, len) in pieces {
                    whole.extend(self.blobs[*blob].read(*at, *len)?);
                }
                whole[rows.start * row_bytes..rows.end * row_bytes].to_vec()
            }
            Place::Pickled { pickle, name } => self.pickles[*pickle].read_rows(name, rows)?,
        };
        Ok(match entry.stored {
            Stored::Bf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|b| half::bf16::from_le_bytes(*b).to_f32().to_le_bytes())
                .collect(),
            Stored::As(_) => bytes,
        })
    }

    /// An entry's rows as f32.
    fn floats(&self, entry: &Entry, rows: Range<usize>) -> Result<Vec<f32>> {
        let n = rows.len() * matrix(&entry.shape).1;
        let bytes = self.entry_rows(entry, rows)?;
        let mut out = vec![0.0; n];
        blocks::decode(entry.stored.dtype(), &bytes, &mut out);
        Ok(out)
    }

    /// `W + alpha / r * B A` for some rows, whose own bytes are `bytes`; sums in f64, result in f32.
    fn merged(
        &self,
        entry: &Entry,
        lora: &Lora,
        bytes: &[u8],
        rows: Range<usize>,
        width: Option<usize>,
    ) -> Result<Vec<u8>> {
        let (Some(a), Some(b)) = (&lora.a, &lora.b) else { return Err(Error::internal("an unchecked LoRA pair")) };
        let (rank, cols) = matrix(&a.shape);
        let scale = self.alpha.unwrap_or(rank as f64) / rank as f64;
        let (a, b) = (self.floats(a, 0..rank)?, self.floats(b, 0..matrix(&b.shape).0)?);
        let row_bytes = entry.stored.dtype().row_bytes(cols)?;
        let (mut own, mut sum) = (vec![0f32; cols], vec![0f64; cols]);
        let mut out = Vec::with_capacity(rows.len() * cols * 4);
        for (i, row) in rows.enumerate() {
            blocks::decode(entry.stored.dtype(), &bytes[i * row_bytes..(i + 1) * row_bytes], &mut own);
            sum.iter_mut().zip(&own).for_each(|(s, w)| *s = f64::from(*w));
            let official = width.map_or(row, |w| official_row(row, w));
            for (k, b) in b[official * rank..(official + 1) * rank].iter().enumerate() {
                let factor = f64::from(*b) * scale;
                sum.iter_mut().zip(&a[k * cols..(k + 1) * cols]).for_each(|(s, a)| *s += factor * f64::from(*a));
            }
            out.extend(sum.iter().flat_map(|s| (*s as f32).to_le_bytes()));
        }
        Ok(out)
    }
}

/// The error for a tensor that is not there.
pub(crate) fn missing(name: &str) -> Error {
    Error::new(Code::PackInvalid, "there is no such tensor").at(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_rows_become_neighbours() {
        let order: Vec<usize> = (0..8).map(|r| official_row(r, 4)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7], "row 2j + s is official row s * width / 2 + j");
    }

    #[test]
    fn heads_have_defaults() {
        let heads = Heads::of(
            &serde_json::json!({"llm_cfg": {"num_attention_heads": 4, "hidden_size": 64, "num_key_value_heads": null}}),
        );
        assert_eq!(heads, Heads { query: 4, key: 4, width: 16 });
    }
}
