//! What the tests of this room share.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use groma::pack::convert::{Options, convert};
use groma::pack::{Checkpoint, Manifest, Source};
use groma::tensor::blocks::decode;
use groma::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::Value;

/// A tensor of a checkpoint that a test is about to write.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// A checkpoint in memory: to be changed, then written.
pub(crate) struct Model {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Raw>,
    pub(crate) tokenizer: Option<Vec<u8>>,
}

/// A golden folder; the small ones stand in `tests/golden`, `GROMA_GOLDEN` names another place.
pub(crate) fn golden(name: &str) -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = std::env::var_os("GROMA_GOLDEN").map_or(ours, PathBuf::from).join(name);
    assert!(dir.is_dir(), "no golden folder {}", dir.display());
    dir
}

impl Model {
    pub(crate) fn golden(name: &str) -> Self {
        let dir = golden(name);
        let bytes = fs::read(dir.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let raw = |v: TensorView<'_>| Raw { dtype: v.dtype(), shape: v.shape().to_vec(), bytes: v.data().to_vec() };
        Self {
            config: serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap(),
            tensors: file.tensors().into_iter().map(|(n, v)| (n, raw(v))).collect(),
            tokenizer: fs::read(dir.join("tokenizer.json")).ok(),
        }
    }

    pub(crate) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        let views: Vec<(&String, TensorView<'_>)> = self
            .tensors
            .iter()
            .map(|(n, t)| (n, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()))
            .collect();
        serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
        if let Some(json) = &self.tokenizer {
            fs::write(dir.join("tokenizer.json"), json).unwrap();
        }
    }

    /// The numbers of a tensor as they stand in the file.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let t = &self.tensors[name];
        assert_eq!(t.dtype, Dtype::F16, "{name}");
        t.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
    }
}

/// The numbers of a tensor of a source.
pub(crate) fn numbers(source: &dyn Source, name: &str) -> Vec<f32> {
    let info = source.info(name).unwrap_or_else(|| panic!("no {name}"));
    let mut out = vec![0.0; info.shape.iter().product()];
    decode(info.dtype, &source.read(name).unwrap(), &mut out);
    out
}

pub(crate) fn options(quant: &str) -> Options {
    let mut options = Options::default();
    options.quant(quant).unwrap();
    options
}

pub(crate) fn run(source: &Path, out: &Path, options: &Options) -> Result<Manifest> {
    convert(source, out, options, &|p| assert!(p.done <= p.total, "{}", p.item))
}

/// What converting the changed model fails with; nothing may stay behind.
pub(crate) fn failure(model: &Model) -> Error {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("in"));
    failure_of(dir.path())
}

/// What converting `DIR/in` fails with; nothing may stay behind.
pub(crate) fn failure_of(dir: &Path) -> Error {
    let error = run(&dir.join("in"), &dir.join("out"), &options("keep")).expect_err("it is broken");
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).filter(|n| *n != "in").collect();
    assert!(left.is_empty(), "{left:?} stayed");
    error
}

/// All names of a checkpoint.
pub(crate) fn names(checkpoint: &Checkpoint) -> Vec<String> {
    checkpoint.names().map(str::to_owned).collect()
}
