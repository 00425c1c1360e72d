//! Where every tensor of a pack lies: manifest and GGUF heads together. Works on bytes in memory, so that the browser,
//! which has no files, streams by it as well.

use std::collections::BTreeMap;
use std::ops::Range;

use super::gguf::{GgufHead, MAX_HEAD};
use super::manifest::{Manifest, PackFile};
use super::names;
use super::source::TensorInfo;
use crate::error::{At, Code, Error, Result};

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Index of its file in [`Manifest::files`].
    pub file: usize,
    /// Shape and type.
    pub info: TensorInfo,
    /// Its bytes in the joined file; [`PackFile::pieces`] says in which parts.
    pub range: Range<u64>,
}

/// The tensors of a pack by upstream's names.
#[derive(Debug)]
pub struct Index {
    manifest: Manifest,
    tensors: BTreeMap<String, Located>,
}

impl Index {
    /// Reads the heads of all GGUF files. `head` is asked for the first bytes of a file: as many as the number says.
    ///
    /// # Errors
    /// `pack-invalid` for broken heads and tensors that are there twice; what `head` fails with.
    pub fn new(manifest: Manifest, mut head: impl FnMut(&PackFile, u64) -> Result<Vec<u8>>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (file, f) in manifest.files.iter().enumerate().filter(|(_, f)| f.name.ends_with(".gguf")) {
            let bytes = head(f, f.size.min(MAX_HEAD))?;
            for t in GgufHead::parse(&bytes, f.size).at(&f.name)?.tensors {
                let name = t.name.clone();
                if tensors.insert(t.name, Located { file, info: t.info, range: t.range }).is_some() {
                    return Err(Error::new(Code::PackInvalid, "a tensor is there twice").at(name).at(&f.name));
                }
            }
        }
        if manifest.config["llm_cfg"]["tie_word_embeddings"].as_bool() == Some(true) {
            tensors.remove("llm.lm_head.weight");
        }
        Ok(Self { manifest, tensors })
    }

    /// The pack's description.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where a tensor lies; a head shared by all layers is found under every layer's name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Located> {
        names::resolve(&self.tensors, name)
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Located)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }
}
