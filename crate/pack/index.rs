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
    /// Reads the heads of all GGUF files. `head` is asked for the first bytes of a file: as many as the number says, more
    /// only where the head needs them.
    ///
    /// # Errors
    /// `pack-invalid` for broken heads and tensors that are there twice; what `head` fails with.
    pub fn new(manifest: Manifest, mut head: impl FnMut(&PackFile, u64) -> Result<Vec<u8>>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (file, f) in manifest.files.iter().enumerate().filter(|(_, f)| f.name.ends_with(".gguf")) {
            for t in read_head(f, &mut head)?.tensors {
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

/// Most heads are smaller than this. In a browser what is read rests in the module's memory, which never shrinks.
const FIRST_BYTES: u64 = 1 << 20;

fn read_head(f: &PackFile, head: &mut impl FnMut(&PackFile, u64) -> Result<Vec<u8>>) -> Result<GgufHead> {
    let most = f.size.min(MAX_HEAD);
    let mut len = FIRST_BYTES;
    while len < most {
        if let Some(whole) = GgufHead::begin(&head(f, len)?, f.size).at(&f.name)? {
            return Ok(whole);
        }
        len *= 2;
    }
    GgufHead::parse(&head(f, most)?, f.size).at(&f.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GGUF file of one number, whose head is a little longer than `metadata`; and the lengths that were asked for.
    fn opened(metadata: usize, data: usize, claimed: usize) -> (Result<usize>, Vec<u64>) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        let number = |bytes: &mut Vec<u8>, n: usize| bytes.extend((n as u64).to_le_bytes());
        let text = |bytes: &mut Vec<u8>, t: &str| {
            bytes.extend((t.len() as u64).to_le_bytes());
            bytes.extend(t.as_bytes());
        };
        number(&mut bytes, 1);
        number(&mut bytes, 1);
        text(&mut bytes, "filler");
        bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        number(&mut bytes, claimed);
        bytes.resize(bytes.len() + metadata, 0);
        text(&mut bytes, "weight");
        bytes.extend([1, 0, 0, 0]);
        number(&mut bytes, 1);
        bytes.extend([0; 4]);
        number(&mut bytes, 0);
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        let sha256 = String::new();
        let file = PackFile { name: "a.gguf".into(), size: bytes.len() as u64, sha256, parts: Vec::new() };
        let mut asked = Vec::new();
        let read = read_head(&file, &mut |_, len| {
            asked.push(len);
            Ok(bytes[..len as usize].to_vec())
        });
        (read.map(|h| h.tensors.len()), asked)
    }

    #[test]
    fn no_more_is_read_than_the_head() {
        assert_eq!(opened(100, 4, 100), (Ok(1), vec![196]), "a small file is read whole");
        assert_eq!(opened(100, 40 << 20, 100), (Ok(1), vec![1 << 20]), "weights are not read");
        assert_eq!(opened(3 << 20, 40 << 20, 3 << 20), (Ok(1), vec![1 << 20, 2 << 20, 4 << 20]));
        assert!(opened(3 << 20, 4, 3 << 20).1.iter().all(|len| *len < 4 << 20), "nothing beyond the file");
    }

    #[test]
    fn heads_without_an_end_are_refused() {
        let (read, asked) = opened(100, 40 << 20, 1 << 40);
        let e = read.expect_err("it claims more than there is");
        assert!(e.code == Code::PackInvalid && e.to_string().contains("cut short"), "{e}");
        assert_eq!(asked, [1, 2, 4, 8, 16].map(|mib| mib << 20));
    }
}
