//! A pack whose files JavaScript reads: its bytes rest outside the wasm heap, and go from there to the device.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use js_sys::Uint8Array;
use serde_json::Value;
use wasm_bindgen::prelude::*;

use super::error::caught;
use crate::error::{At, Code, Error, Result};
use crate::pack::{Index, Manifest, Source, TensorInfo};
use crate::tensor::Upload;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** Reads ranges of a pack's files, at once. */
export interface PackReader {
  read(file: string, offset: number, length: number): Uint8Array;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// JavaScript's side of the pack.
    #[wasm_bindgen(typescript_type = "PackReader")]
    #[derive(Debug)]
    pub type PackReader;

    #[wasm_bindgen(method, catch)]
    fn read(this: &PackReader, file: &str, offset: f64, length: f64) -> Result<Uint8Array, JsValue>;
}

/// A pack in the browser.
#[derive(Debug)]
pub(super) struct JsPack {
    index: Index,
    reader: PackReader,
}

impl JsPack {
    /// Reads the description and the heads of the files.
    pub(super) fn open(description: &[u8], reader: PackReader) -> Result<Self> {
        let manifest = Manifest::parse(description)?;
        let index = Index::new(manifest, |file, len| read_range(&reader, &file.name, 0..len))?;
        Ok(Self { index, reader })
    }
}

impl Source for JsPack {
    fn config(&self) -> &Value {
        &self.index.manifest().config
    }

    fn stops(&self) -> Option<Vec<u32>> {
        self.index.manifest().stops()
    }

    fn tokenizer(&self) -> Result<Option<Vec<u8>>> {
        self.index.manifest().file("tokenizer.json").map(|f| read_range(&self.reader, &f.name, 0..f.size)).transpose()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.index.get(name).map(|t| t.info.clone())
    }

    fn file(&self, name: &str) -> Option<String> {
        self.place(name).ok().map(|(file, _)| file.to_owned())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (file, range) = self.place(name)?;
        read_range(&self.reader, file, range).at(name)
    }

    fn send<'a>(&'a self, name: &'a str, to: &'a mut Upload) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>> {
        Box::pin(async move {
            let (file, range) = self.place(name)?;
            let mut at = range.start;
            while at < range.end {
                let count = (range.end - at).min(PIECE);
                to.write(&view(&self.reader, file, at, count).at(name)?).await?;
                at += count;
            }
            Ok(())
        })
    }
}

impl JsPack {
    /// The file that a tensor lies in, and where.
    fn place(&self, name: &str) -> Result<(&str, Range<u64>)> {
        let t = self.index.get(name).ok_or_else(|| Error::new(Code::PackInvalid, "the tensor is missing").at(name))?;
        Ok((&self.index.manifest().files[t.file].name, t.range.clone()))
    }
}

/// Bytes that are read at a time: what JavaScript holds besides its files.
const PIECE: u64 = 4 << 20;

/// A range in JavaScript's memory.
#[allow(clippy::cast_precision_loss, reason = "the manifest's sizes are far below 2^53")]
fn view(reader: &PackReader, file: &str, at: u64, count: u64) -> Result<Uint8Array> {
    let bytes = reader.read(file, at as f64, count as f64).map_err(caught).at(file)?;
    if u64::from(bytes.length()) == count {
        return Ok(bytes);
    }
    Err(Error::new(Code::PartCorrupt, "the file is cut short").expected(count, bytes.length()).at(file))
}

/// A range in ours.
fn read_range(reader: &PackReader, file: &str, range: Range<u64>) -> Result<Vec<u8>> {
    Ok(view(reader, file, range.start, range.end - range.start)?.to_vec())
}
