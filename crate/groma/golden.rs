//! Reads the goldens in `tests/golden` for the unit tests of the host-side stages.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A folder of goldens.
pub(crate) struct Golden {
    folder: PathBuf,
    book: Value,
    /// The model's `config.json`, null where there is none.
    pub(crate) config: Value,
    manifest: Value,
}

/// A stored tensor.
pub(crate) struct Array {
    /// Outermost axis first.
    pub(crate) shape: Vec<usize>,
    /// Whether only a part of the tensor is stored.
    pub(crate) sliced: bool,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let json = |file: &str| match std::fs::read(folder.join(file)) {
            Ok(bytes) => serde_json::from_slice(&bytes).expect("goldens are valid JSON"),
            Err(_) => Value::Null,
        };
        let (book, config, manifest) = (json("cases.json"), json("config.json"), json("manifest.json"));
        Self { folder, book, config, manifest }
    }

    pub(crate) fn book(&self) -> &Value {
        &self.book
    }

    pub(crate) fn cases(&self) -> &[Value] {
        self.book["cases"].as_array().expect("a book has cases")
    }

    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).expect("a golden file is there")
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.file(name)).expect("goldens are valid JSON")
    }

    pub(crate) fn input(&self, case: &Value, name: &str) -> Array {
        self.tensor("inputs.safetensors", case["inputs"][name].as_str().expect("an input"))
    }

    pub(crate) fn output(&self, case: &Value, name: &str) -> Array {
        self.tensor("expected.safetensors", case["outputs"][name].as_str().expect("an output"))
    }

    pub(crate) fn expected(&self, name: &str) -> Array {
        self.tensor("expected.safetensors", name)
    }

    /// The part of a whole tensor that the manifest stores under `name`.
    pub(crate) fn take_slice<T: Copy>(&self, name: &str, data: &[T], shape: &[usize]) -> Vec<T> {
        let slice: Option<Vec<[usize; 3]>> =
            serde_json::from_value(self.manifest["tensors"][name]["slice"].clone()).expect("a slice");
        let axes = slice.unwrap_or_else(|| shape.iter().map(|n| [0, *n, 1]).collect());
        let mut at = vec![0];
        for (axis, n) in axes.iter().zip(shape) {
            at = at.iter().flat_map(|a| (axis[0]..axis[1]).step_by(axis[2]).map(move |i| a * n + i)).collect();
        }
        at.into_iter().map(|i| data[i]).collect()
    }

    fn tensor(&self, file: &str, name: &str) -> Array {
        let bytes = self.file(file);
        let all = SafeTensors::deserialize(&bytes).expect("goldens are valid safetensors");
        let view = all.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
        let entry = self.manifest["tensors"].get(name).unwrap_or(&Value::Null);
        Array {
            shape: view.shape().to_vec(),
            sliced: entry.get("slice").is_some_and(|s| !s.is_null()),
            dtype: view.dtype(),
            bytes: view.data().to_vec(),
        }
    }
}

impl Array {
    pub(crate) fn f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F64 => self.bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            Dtype::F16 => self.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            other => panic!("{other:?} are no floats"),
        }
    }

    pub(crate) fn u8(&self) -> &[u8] {
        assert_eq!(self.dtype, Dtype::U8);
        &self.bytes
    }

    pub(crate) fn assert_close(&self, got: &[f32], tolerance: f32, what: &str) {
        let want = self.f32();
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((g - w).abs() <= tolerance || (g.is_nan() && w.is_nan()), "{what}[{i}]: {g} is not {w}");
        }
    }
}
