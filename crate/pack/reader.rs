//! A model pack in a folder: `model.json` and GGUF files in parts, joined on reading.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::index::Index;
use super::manifest::{MANIFEST, MAX_MANIFEST, Manifest, PackFile, Part, TOKENIZER};
use super::source::{Source, TensorInfo};
use super::weights::{Blob, missing};
use crate::error::{At, Code, Error, Result};
use crate::tensor::plan::Run;

/// A pack. Tensors are read when they are asked for.
#[derive(Debug)]
pub struct Pack {
    dir: PathBuf,
    index: Index,
}

impl Pack {
    /// Opens a pack by its folder or its `model.json`. All parts are looked for and their sizes checked; see
    /// [`Pack::verify`] for their contents.
    ///
    /// # Errors
    /// `no-model`, `pack-invalid`, `part-missing`, `part-corrupt` (a part of another size).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let dir =
            if path.file_name().is_some_and(|n| n == MANIFEST) { path.parent().unwrap_or(Path::new("")) } else { path };
        let file = dir.join(MANIFEST);
        if !file.is_file() {
            return Err(Error::new(Code::NoModel, "no model pack here: there is no model.json").at(dir.display()));
        }
        let blob = Blob::open(&file)?;
        if blob.len > MAX_MANIFEST {
            return Err(Error::new(Code::PackInvalid, "too large")
                .expected(format!("at most {MAX_MANIFEST} bytes"), blob.len)
                .at(file.display()));
        }
        let manifest = Manifest::parse(&blob.read(0, blob.len as usize)?).at(dir.display())?;
        for part in manifest.parts() {
            check_size(dir, part)?;
        }
        let index = Index::new(manifest, |file, len| read_range(dir, file, 0..len)).at(dir.display())?;
        Ok(Self { dir: dir.to_owned(), index })
    }

    /// Description and places of all tensors.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reads every part and compares its SHA-256, on all threads. Progress is in KiB; a stop takes effect after the parts
    /// at hand.
    ///
    /// # Errors
    /// `part-corrupt` names the part, the expected and the found hash; `part-missing`, `io`, `aborted`.
    pub fn verify(&self, run: &Run<'_>) -> Result<()> {
        let parts: Vec<&Part> = self.index.manifest().parts().collect();
        let kib = |bytes: u64| usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
        let mut done = 0;
        for some in parts.chunks(rayon::current_num_threads()) {
            if run.cancel.is_cancelled() {
                return Err(Error::aborted());
            }
            some.par_iter().try_for_each(|part| {
                check_size(&self.dir, part)?;
                let bytes = read_whole(&self.dir, part)?;
                compare(&part.sha256, Sha256::digest(&bytes)).at(&part.name).at(self.dir.display())
            })?;
            done += some.iter().map(|part| part.size).sum::<u64>();
            run.progress(kib(done), kib(self.index.manifest().total));
        }
        Ok(())
    }

    /// The bytes of a file that is no GGUF (`tokenizer.json`), or `None` where the pack has none of that name.
    ///
    /// # Errors
    /// `io`, `part-missing`.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.index.manifest().file(name).map(|f| read_range(&self.dir, f, 0..f.size)).transpose()
    }
}

impl Source for Pack {
    fn config(&self) -> &Value {
        &self.index.manifest().config
    }

    fn stops(&self) -> Option<Vec<u32>> {
        self.index.manifest().stops()
    }

    fn tokenizer(&self) -> Result<Option<Vec<u8>>> {
        self.file(TOKENIZER)
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.index.get(name).map(|t| t.info.clone())
    }

    fn file(&self, name: &str) -> Option<String> {
        Some(self.index.manifest().files[self.index.get(name)?.file].name.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let t = self.index.get(name).ok_or_else(|| missing(name).at(self.dir.display()))?;
        let file = &self.index.manifest().files[t.file];
        read_range(&self.dir, file, t.range.clone()).at(name)
    }
}

fn check_size(dir: &Path, part: &Part) -> Result<()> {
    let path = dir.join(&part.name);
    match std::fs::metadata(&path) {
        Ok(m) if m.is_file() && m.len() == part.size => Ok(()),
        Ok(m) if m.is_file() => Err(Error::new(Code::PartCorrupt, "the part has another size")
            .expected(part.size, m.len())
            .at(&part.name)
            .at(dir.display())),
        _ => Err(Error::new(Code::PartMissing, "the part is missing")
            .expected(format!("{} bytes", part.size), "no file")
            .at(&part.name)
            .at(dir.display())),
    }
}

fn read_whole(dir: &Path, part: &Part) -> Result<Vec<u8>> {
    let fail =
        |e: std::io::Error| Error::new(Code::Io, format!("can't read the part: {e}")).at(&part.name).at(dir.display());
    let mut bytes = Vec::with_capacity(part.size as usize);
    File::open(dir.join(&part.name)).map_err(fail)?.take(part.size).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// A range of a joined file.
fn read_range(dir: &Path, file: &PackFile, range: Range<u64>) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity((range.end - range.start) as usize);
    for (part, within) in file.pieces(range) {
        let part = &file.parts[part];
        let blob = Blob::open(&dir.join(&part.name))?;
        out.extend(blob.read(within.start, (within.end - within.start) as usize)?);
    }
    Ok(out)
}

fn compare(want: &str, got: impl AsRef<[u8]>) -> Result<()> {
    let got = hex(got.as_ref());
    if want == got {
        Ok(())
    } else {
        Err(Error::new(Code::PartCorrupt, "the SHA-256 is another one").expected(want, got))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
