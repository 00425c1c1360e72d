//! Writing a pack: GGUF heads, files cut into hashed parts, and a folder that appears only when it is whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::gguf::MAX_HEAD;
use super::manifest::{DECODER, MANIFEST, MAX_PART, Manifest, PERCEIVER, PackFile, Part, TOKENIZER};
use super::reader::hex;
use crate::error::{Code, Error, Result};
use crate::tensor::DType;

const ALIGNMENT: u64 = 32;

/// A value of a GGUF file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, kind: u32, len: usize| {
            out.extend(9u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(v) => out.extend([4u32.to_le_bytes(), v.to_le_bytes()].concat()),
            Self::F32(v) => out.extend([6u32.to_le_bytes(), v.to_le_bytes()].concat()),
            Self::Bool(v) => {
                out.extend(7u32.to_le_bytes());
                out.push(u8::from(*v));
            }
            Self::Text(v) => {
                out.extend(8u32.to_le_bytes());
                text(out, v);
            }
            Self::Texts(v) => {
                list(out, 8, v.len());
                v.iter().for_each(|s| text(out, s));
            }
            Self::U32s(v) => {
                list(out, 4, v.len());
                v.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Self::I32s(v) => {
                list(out, 5, v.len());
                v.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Self::F32s(v) => {
                list(out, 6, v.len());
                v.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// A tensor to be written: its name in the file, rows and columns as stored, and its type.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    pub(crate) bytes: u64,
}

/// Bytes after `n` up to the next aligned offset.
pub(crate) fn padding(n: u64) -> usize {
    (n.next_multiple_of(ALIGNMENT) - n) as usize
}

/// The head of a GGUF file (version 3), padded to where its data begin. Candle's writer wants all tensors in memory;
/// this one wants none.
pub(crate) fn gguf_head(metadata: &[(String, Meta)], tensors: &[Planned]) -> Result<Vec<u8>> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut out, key);
        value.write(&mut out);
    }
    let mut offset = 0u64;
    for t in tensors {
        text(&mut out, &t.name);
        out.extend((t.shape.len() as u32).to_le_bytes());
        t.shape.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
        let kind: u32 = match t.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q8_0 => 8,
            DType::U32 => return Err(Error::internal("weights are never ids")),
        };
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += t.bytes + padding(t.bytes) as u64;
    }
    out.resize(out.len() + padding(out.len() as u64), 0);
    if out.len() as u64 > MAX_HEAD {
        return Err(Error::new(Code::PackInvalid, "the head of the file grows too long")
            .expected(format!("at most {MAX_HEAD} bytes"), out.len()));
    }
    Ok(out)
}

/// Whether a pack may hold a file of that name.
fn is_ours(name: &str) -> bool {
    let number = |tail: &str| tail.strip_prefix('.').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let of = |file: &str| name.strip_prefix(file).is_some_and(|tail| tail.is_empty() || number(tail));
    name == MANIFEST || [TOKENIZER, PERCEIVER, DECODER].into_iter().any(of)
}

/// A folder beside `out` that takes its place when everything is in it, and vanishes if that never happens.
#[derive(Debug)]
pub(crate) struct Staging {
    out: PathBuf,
    dir: PathBuf,
    done: bool,
}

impl Staging {
    /// Makes `OUT.part-PID`.
    ///
    /// # Errors
    /// `usage` where `out` exists and is neither empty nor a pack, or holds more than a pack: nothing foreign is ever
    /// replaced.
    pub(crate) fn new(out: &Path) -> Result<Self> {
        let taken = |what: String| {
            Err(Error::new(Code::Usage, "the place for the pack is taken")
                .expected("nothing, an empty folder or a pack", what)
                .at(out.display()))
        };
        if out.exists() && !out.is_dir() {
            return taken("a file".into());
        }
        if out.exists() {
            let look = |e| Error::writing(out, "look into the folder", &e);
            let names =
                fs::read_dir(out).map_err(look)?.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()));
            let names = names.collect::<std::io::Result<Vec<String>>>().map_err(look)?;
            let pack = names.is_empty() || names.iter().any(|n| n == MANIFEST);
            if let Some(foreign) = names.iter().find(|n| !pack || !is_ours(n)) {
                return taken(foreign.clone());
            }
        }
        let name = out
            .file_name()
            .ok_or_else(|| Error::new(Code::Usage, "the pack needs a folder's name").at(out.display()))?;
        let beside = |end: &str| {
            let mut name = name.to_owned();
            name.push(format!(".part-{}{end}", std::process::id()));
            out.with_file_name(name)
        };
        let dir = (0..).map(|i| beside(&if i == 0 { String::new() } else { format!("-{i}") })).find(|d| !d.exists());
        let dir = dir.ok_or_else(|| Error::internal("integers end"))?;
        fs::create_dir_all(&dir).map_err(|e| Error::writing(&dir, "make the folder", &e))?;
        Ok(Self { out: out.to_owned(), dir, done: false })
    }

    pub(crate) fn file(&self, name: &str) -> Parts<'_> {
        let file = PackFile { name: name.to_owned(), size: 0, sha256: String::new(), parts: Vec::new() };
        Parts { staging: self, file, whole: Sha256::new(), open: None }
    }

    /// Writes `model.json` and puts the folder in its place.
    pub(crate) fn commit(mut self, manifest: &Manifest) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(manifest).map_err(|e| Error::internal(format!("model.json: {e}")))?;
        json.push(b'\n');
        Manifest::parse(&json).map_err(|e| Error::internal(format!("we would write a pack that we refuse: {e}")))?;
        let path = self.dir.join(MANIFEST);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(&json)?;
            file.sync_all()
        };
        write().map_err(|e| Error::writing(&path, "write", &e))?;
        let mut old = self.dir.clone().into_os_string();
        old.push("-old");
        let old = PathBuf::from(old);
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|e| Error::writing(from, &format!("rename to {}", to.display()), &e))
        };
        let replaced = self.out.exists();
        if replaced {
            rename(&self.out, &old)?;
        }
        if let Err(e) = rename(&self.dir, &self.out) {
            if replaced {
                rename(&old, &self.out)?;
            }
            return Err(e);
        }
        self.done = true;
        if replaced {
            fs::remove_dir_all(&old).map_err(|e| Error::writing(&old, "remove the replaced pack", &e))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // Best effort: there is nobody left to tell, and the error under way matters more.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A file that is being cut into parts while it is written.
pub(crate) struct Parts<'a> {
    staging: &'a Staging,
    file: PackFile,
    whole: Sha256,
    open: Option<(File, Part, Sha256)>,
}

impl Parts<'_> {
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.whole.update(bytes);
        self.file.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.open.is_none() {
                let name = if self.file.name.ends_with(".gguf") {
                    format!("{}.{:03}", self.file.name, self.file.parts.len())
                } else if self.file.parts.is_empty() {
                    self.file.name.clone()
                } else {
                    format!("{}.{:03}", self.file.name, self.file.parts.len())
                };
                let path = self.staging.dir.join(&name);
                let file = File::create(&path).map_err(|e| Error::writing(&path, "write", &e))?;
                self.open = Some((file, Part { name, size: 0, sha256: String::new() }, Sha256::new()));
            }
            let Some((file, part, hash)) = &mut self.open else {
                return Err(Error::internal("a part that was just opened"));
            };
            let n = bytes.len().min((MAX_PART - part.size) as usize);
            let (now, later) = bytes.split_at(n);
            file.write_all(now).map_err(|e| Error::writing(&self.staging.dir.join(&part.name), "write", &e))?;
            hash.update(now);
            part.size += n as u64;
            bytes = later;
            if part.size == MAX_PART {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some((file, mut part, hash)) = self.open.take() {
            file.sync_all().map_err(|e| Error::writing(&self.staging.dir.join(&part.name), "write", &e))?;
            part.sha256 = hex(&hash.finalize());
            self.file.parts.push(part);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<PackFile> {
        self.close()?;
        self.file.sha256 = hex(&self.whole.finalize());
        Ok(self.file)
    }
}
