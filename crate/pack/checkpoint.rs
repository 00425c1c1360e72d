//! A folder of official form: `config.json`, weights (safetensors or PyTorch, whole or in shards), `tokenizer.json`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::gguf::GgufHead;
use super::legacy;
use super::manifest::plain_name;
use super::pickle::Pickle;
use super::safetensors;
use super::source::{Source, TensorInfo};
use super::tokenizer;
use super::weights::{Blob, Weights};
use crate::error::{At, Code, Error, Result};

/// Larger JSON files are no configs or indices.
const MAX_JSON: u64 = 64 << 20;

/// A checkpoint folder. One tensor is in memory at a time, the one that is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) dir: PathBuf,
    pub(crate) config: Value,
    pub(crate) weights: Weights,
    pub(crate) tokenizer: Option<Vec<u8>>,
    /// Licences of the bases.
    pub(crate) licence: Vec<String>,
    /// Head of the GGUF file that the decoder's base is.
    pub(crate) base: Option<GgufHead>,
}

impl Checkpoint {
    /// Opens a folder of official form. Reads headers only.
    ///
    /// # Errors
    /// `no-model` where there is no `config.json` or no weights, `part-missing` for an absent shard, `pack-invalid` for
    /// anything broken in them.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut checkpoint = Self::without_weights(dir)?;
        if !load_weights(&mut checkpoint.weights, dir)? {
            return Err(Error::new(Code::NoModel, "no weights in the folder")
                .expected("model.safetensors or pytorch_model.bin, whole or with an index", "none of them")
                .at(dir.display()));
        }
        checkpoint.finish()
    }

    /// The config and tokenizer of a folder, before any weights.
    pub(crate) fn without_weights(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(Error::new(Code::NoModel, "no model here: there is no config.json").at(dir.display()));
        }
        let config = read_json(&path)?;
        if !config.is_object() {
            return Err(Error::new(Code::PackInvalid, "config.json is not a JSON object").at(path.display()));
        }
        let tokenizer = tokenizer::of_folder(dir, &config)?;
        Ok(Self {
            dir: dir.to_owned(),
            weights: Weights::new(&config),
            config,
            tokenizer,
            licence: Vec::new(),
            base: None,
        })
    }

    /// Checks what belongs together, after all weights are in.
    pub(crate) fn finish(mut self) -> Result<Self> {
        if self.config["llm_cfg"]["tie_word_embeddings"].as_bool() == Some(true) {
            self.weights.remove("llm.lm_head.weight");
        }
        self.weights.check().at(self.dir.display())?;
        Ok(self)
    }

    /// All tensors, by official name; LoRA pairs are part of what they are added to.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.names()
    }

    /// Some rows of a tensor (its first axis; all of it where it has fewer than two) in the type of [`Source::info`].
    ///
    /// # Errors
    /// `pack-invalid` for a tensor that is not there or rows beyond its last one; `io`.
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>> {
        self.weights.read_rows(name, rows).at(self.dir.display())
    }
}

impl Source for Checkpoint {
    fn config(&self) -> &Value {
        &self.config
    }

    fn tokenizer(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.tokenizer.clone())
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.weights.info(name)
    }

    fn file(&self, name: &str) -> Option<String> {
        self.weights.file(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.weights.read(name).at(self.dir.display())
    }
}

/// Reads a JSON file of a sane size.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let blob = Blob::open(path)?;
    if blob.len > MAX_JSON {
        return Err(Error::new(Code::PackInvalid, "the JSON file is too large")
            .expected(format!("at most {MAX_JSON} bytes"), blob.len)
            .at(path.display()));
    }
    let bytes = blob.read(0, blob.len as usize)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(Code::PackInvalid, format!("not valid JSON: {e}")).at(path.display()))
}

/// Takes all weight files of the folder in; whether there were any.
pub(crate) fn load_weights(weights: &mut Weights, dir: &Path) -> Result<bool> {
    for (whole, index) in
        [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")]
    {
        let files = if dir.join(index).is_file() {
            shards(dir, index)?
        } else if dir.join(whole).is_file() {
            vec![dir.join(whole)]
        } else {
            continue;
        };
        for path in files {
            let blob = Blob::open(&path)?;
            let entries = if !whole.ends_with(".bin") {
                safetensors::entries(&blob, weights.blobs.len())?
            } else if legacy::is_legacy(&blob)? {
                legacy::entries(&blob, weights.blobs.len())?
            } else {
                let pickle = Pickle::open(&path)?;
                let mut entries = pickle.entries(weights.pickles.len())?;
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                weights.pickles.push(pickle);
                entries
            };
            weights.blobs.push(blob);
            entries.into_iter().for_each(|(name, entry)| weights.insert(&name, entry));
        }
        return Ok(true);
    }
    Ok(false)
}

/// The shards that an index names, each a plain file name inside the folder.
fn shards(dir: &Path, index: &str) -> Result<Vec<PathBuf>> {
    let path = dir.join(index);
    let json = read_json(&path)?;
    let broken = |what: &str| Error::new(Code::PackInvalid, format!("the index {what}")).at(path.display());
    let map = json["weight_map"].as_object().ok_or_else(|| broken("has no weight_map"))?;
    let mut files = BTreeSet::new();
    for value in map.values() {
        files.insert(value.as_str().ok_or_else(|| broken("names a shard that is no text"))?.to_owned());
    }
    files
        .into_iter()
        .map(|name| {
            if !plain_name(&name) {
                return Err(broken("names a shard outside its folder").expected("a plain file name", name));
            }
            let file = dir.join(&name);
            if file.is_file() {
                Ok(file)
            } else {
                Err(Error::new(Code::PartMissing, "a shard that the index names is missing").at(name).at(dir.display()))
            }
        })
        .collect()
}
