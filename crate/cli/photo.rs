//! The photo that a call names: a file, or what comes on stdin.

use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::{At, Code, Error, Result};
use crate::groma::preprocess::{self, Rgb};

/// Longer files are no photos; reading stops there, so that an endless stdin ends.
const MAX_BYTES: u64 = 1 << 30;

/// Reads and decodes.
pub(super) fn read(path: &Path) -> Result<Rgb> {
    if path == Path::new("-") {
        return decode(std::io::stdin().lock()).at("stdin");
    }
    let file = std::fs::File::open(path).map_err(|e| {
        let (code, says) = match e.kind() {
            ErrorKind::NotFound => (Code::Usage, "there is no such photo".to_owned()),
            _ => (Code::Io, format!("the photo can't be read: {e}")),
        };
        Error::new(code, says).at(path.display())
    })?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Error::new(Code::Usage, "this is a folder, not a photo").at(path.display()));
    }
    decode(file).at(path.display())
}

fn decode(from: impl Read) -> Result<Rgb> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::new(Code::Io, format!("the photo can't be read: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(Code::ImageTooLarge, "the file is too large").expected("at most 1 GiB", "more"));
    }
    preprocess::decode(&bytes)
}
