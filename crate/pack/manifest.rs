//! `model.json`, the description of a pack: which files, cut into which parts, with which hashes.
//!
//! Everything in it is foreign until [`Manifest::parse`] has looked at it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{At, Code, Error, Result};

/// The file that describes a pack.
pub const MANIFEST: &str = "model.json";
/// The longest part, in bytes: small enough for every static host's file limit.
pub const MAX_PART: u64 = 24 << 20;
/// The longest `model.json`, in bytes.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The longest `tokenizer.json`, in bytes: the largest vocabularies in use take half of it, and memory a multiple.
pub const MAX_TOKENIZER: u64 = 64 << 20;
/// The file that holds the tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The file that holds encoder, proposer, region encoder and bridge.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const PERCEIVER: &str = "perceiver.gguf";
/// The file that holds the language model.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const DECODER: &str = "decoder.gguf";
const FORMAT: &str = "groma-pack";
const VERSION: u32 = 1;

/// A pack as `model.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `groma-pack`.
    pub format: String,
    /// Always 1.
    pub version: u32,
    /// What the model is called.
    pub name: String,
    /// Licences under which it is passed on (SPDX names where there are any).
    pub licence: Vec<String>,
    /// Upstream's `config.json` with our extensions.
    pub config: Value,
    /// How answers end.
    pub generation: Generation,
    /// Component to type (`attention` → `q8_0`).
    pub quantisation: BTreeMap<String, String>,
    /// All files but this one.
    pub files: Vec<PackFile>,
    /// Bytes of all files.
    pub total: u64,
}

/// How answers end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Ids that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Tokens after which upstream's demo cuts an answer: a hint for other programs. Groma's own calls say theirs.
    pub max_new_tokens: u32,
}

/// A file of a pack: its parts, joined in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackFile {
    /// `decoder.gguf`, `perceiver.gguf`, `tokenizer.json`.
    pub name: String,
    /// Bytes of the joined file.
    pub size: u64,
    /// SHA-256 of the joined file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The pieces as they lie beside `model.json`.
    pub parts: Vec<Part>,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its own file name.
    pub name: String,
    /// Bytes, at most [`MAX_PART`].
    pub size: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message)
}

impl Manifest {
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn new(name: String, config: Value, generation: Generation) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            name,
            licence: Vec::new(),
            config,
            generation,
            quantisation: BTreeMap::new(),
            files: Vec::new(),
            total: 0,
        }
    }

    /// Reads and checks a `model.json`.
    ///
    /// # Errors
    /// `pack-invalid`: not JSON, another format or version, a name that leaves the folder, sizes or hashes that can't be.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::checked(bytes).at(MANIFEST)
    }

    fn checked(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(invalid("too large").expected(format!("at most {MAX_MANIFEST} bytes"), bytes.len()));
        }
        let json: Value = serde_json::from_slice(bytes).map_err(|e| invalid(format!("not valid JSON: {e}")))?;
        if json["format"] != FORMAT {
            return Err(invalid("not a model pack").expected(format!("format {FORMAT:?}"), &json["format"]));
        }
        if json["version"] != VERSION {
            return Err(invalid("a pack of another version").expected(VERSION, &json["version"]));
        }
        let manifest: Self = serde_json::from_value(json).map_err(|e| invalid(e.to_string()))?;
        if !manifest.config.is_object() {
            return Err(invalid("config is not a JSON object"));
        }
        let mut seen = BTreeSet::from([MANIFEST]);
        let mut total = 0u64;
        for file in &manifest.files {
            let mut size = 0u64;
            check_name(&file.name)?;
            check_hash(&file.sha256).at(&file.name)?;
            for part in &file.parts {
                check_name(&part.name).at(&file.name)?;
                check_hash(&part.sha256).at(&part.name)?;
                if part.size == 0 || part.size > MAX_PART {
                    return Err(invalid("a part of an impossible size")
                        .expected(format!("1 to {MAX_PART} bytes"), part.size)
                        .at(&part.name));
                }
                if !seen.insert(&part.name) {
                    return Err(invalid("two parts of the same name").at(&part.name));
                }
                size += part.size; // Can't overflow: a manifest of 4 MiB holds too few parts.
            }
            if size != file.size || file.parts.is_empty() {
                return Err(invalid("the parts are not the file")
                    .expected(format!("{} bytes", file.size), size)
                    .at(&file.name));
            }
            if file.name == TOKENIZER && size > MAX_TOKENIZER {
                return Err(invalid("the tokenizer is too large")
                    .expected(format!("at most {MAX_TOKENIZER} bytes"), size)
                    .at(TOKENIZER));
            }
            total += size;
        }
        let mut names: Vec<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(invalid("two files of the same name").at(twice[0]));
        }
        if total != manifest.total {
            return Err(invalid("the total is not the files' sum").expected(total, manifest.total));
        }
        Ok(manifest)
    }

    /// Ids that end an answer; `None` where the description leaves that to the configuration.
    #[must_use]
    pub fn stops(&self) -> Option<Vec<u32>> {
        Some(&self.generation.eos_token_ids).filter(|ids| !ids.is_empty()).cloned()
    }

    /// The file of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&PackFile> {
        self.files.iter().find(|f| f.name == name)
    }

    /// All parts in the order in which they are best fetched.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.files.iter().flat_map(|f| &f.parts)
    }
}

impl PackFile {
    /// Which pieces of which parts make up a range of the joined file: (index of the part, bytes within it).
    /// What lies beyond the file is left out.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let mut end = 0;
        self.parts.iter().enumerate().filter_map(move |(i, part)| {
            let start = end;
            end += part.size;
            let (from, to) = (range.start.max(start), range.end.min(end));
            (from < to).then(|| (i, from - start..to - start))
        })
    }
}

fn check_name(name: &str) -> Result<()> {
    if plain_name(name) {
        Ok(())
    } else {
        Err(invalid("a file name that leaves the pack").expected("a plain file name", format!("{name:?}")))
    }
}

/// Whether a file name stays inside the folder that it is joined to, on every system.
pub(crate) fn plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':', '\0', '?', '#', '%'])
}

fn check_hash(hash: &str) -> Result<()> {
    let ok = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if ok {
        Ok(())
    } else {
        Err(invalid("not a SHA-256").expected("64 lower-case hexadecimal digits", format!("{hash:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Value {
        let hash = "0".repeat(64);
        let part = |i: usize, size: u64| json!({"name": format!("a.gguf.00{i}"), "size": size, "sha256": hash});
        json!({"format": "groma-pack", "version": 1, "name": "m", "licence": [], "config": {}, "quantisation": {}, "total": 12,
               "generation": {"eos_token_ids": [2], "max_new_tokens": 64},
               "files": [{"name": "a.gguf", "size": 12, "sha256": hash, "parts": [part(0, 5), part(1, 7)]}]})
    }

    fn error(change: impl Fn(&mut Value)) -> String {
        let mut m = manifest();
        change(&mut m);
        let e = Manifest::parse(m.to_string().as_bytes()).unwrap_err();
        assert_eq!(e.code, Code::PackInvalid, "{e}");
        e.to_string()
    }

    #[test]
    fn ranges_are_found_in_parts() {
        let m = Manifest::parse(manifest().to_string().as_bytes()).unwrap();
        let pieces = |r| m.files[0].pieces(r).collect::<Vec<_>>();
        assert_eq!(pieces(3..8), [(0, 3..5), (1, 0..3)]);
        assert_eq!(pieces(5..6), [(1, 0..1)]);
        assert_eq!(pieces(4..4), []);
    }

    #[test]
    fn foreign_manifests_are_refused() {
        assert!(error(|m| m["version"] = json!(2)).contains("expected 1, got 2"));
        assert!(error(|m| m["format"] = json!("zip")).contains("not a model pack"));
        assert!(error(|m| m["files"][0]["parts"][0]["name"] = json!("../x")).contains("leaves the pack"));
        assert!(error(|m| m["files"][0]["parts"][1]["name"] = json!("a.gguf.000")).contains("same name"));
        assert!(error(|m| m["files"][0]["parts"][0]["size"] = json!(1u64 << 40)).contains("impossible size"));
        assert!(error(|m| m["files"][0]["size"] = json!(u64::MAX)).contains("got 12"));
        assert!(error(|m| m["files"][0]["sha256"] = json!("xyz")).contains("SHA-256"));
        assert!(error(|m| m["total"] = json!(13)).contains("expected 12, got 13"));
        assert!(error(|m| m["config"] = json!([])).contains("config"));
        assert!(Manifest::parse(b"{").is_err());
    }
}
