//! Reads a folder of the golden form and judges what is compared with it (golden specification 12 and 13).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::error::{Code, Error, Result};

/// A folder: its book of cases, its manifest and its stored tensors.
#[derive(Debug)]
pub(super) struct Golden {
    pub(super) dir: PathBuf,
    pub(super) cases: Value,
    pub(super) manifest: Value,
    expected: Vec<u8>,
}

/// Numbers of a tensor, wide enough for all that goldens hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
    pub(super) integers: bool,
}

impl Numbers {
    pub(super) fn f32(shape: &[usize], values: &[f32]) -> Self {
        Self { shape: shape.to_vec(), values: values.iter().map(|v| f64::from(*v)).collect(), integers: false }
    }

    pub(super) fn integers(shape: &[usize], values: impl IntoIterator<Item = usize>) -> Self {
        Self { shape: shape.to_vec(), values: values.into_iter().map(|v| v as f64).collect(), integers: true }
    }

    pub(super) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|v| *v as f32).collect()
    }

    /// The stored part of a whole tensor.
    fn cut(&self, slice: &[[usize; 3]]) -> Self {
        let picks: Vec<Vec<usize>> =
            slice.iter().map(|[a, b, step]| (*a..*b).step_by((*step).max(1)).collect()).collect();
        let shape: Vec<usize> = picks.iter().map(Vec::len).collect();
        let mut values = Vec::with_capacity(shape.iter().product());
        if shape.contains(&0) {
            return Self { shape, values, integers: self.integers };
        }
        let mut place = vec![0; shape.len()];
        'all: loop {
            let at = place.iter().zip(&picks).zip(&self.shape).fold(0, |at, ((i, p), n)| at * n + p[*i]);
            values.push(self.values[at]);
            for axis in (0..place.len()).rev() {
                place[axis] += 1;
                if place[axis] < shape[axis] {
                    continue 'all;
                }
                place[axis] = 0;
            }
            break;
        }
        Self { shape, values, integers: self.integers }
    }
}

pub(super) fn json(path: &Path) -> Result<Value> {
    let bytes = read(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(Code::PackInvalid, format!("no JSON: {e}")).at(path.display()))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::new(Code::Io, format!("can't be read: {e}")).at(path.display()))
}

/// All tensors of a safetensors file.
pub(super) fn tensors(path: &Path) -> Result<BTreeMap<String, Numbers>> {
    let bytes = read(path)?;
    let file = parse(&bytes).map_err(|e| e.at(path.display()))?;
    file.iter().map(|(name, view)| Ok((name.to_owned(), numbers(&view)?))).collect()
}

fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    SafeTensors::deserialize(bytes).map_err(|e| Error::new(Code::PackInvalid, format!("no safetensors file: {e}")))
}

fn numbers(view: &safetensors::tensor::TensorView<'_>) -> Result<Numbers> {
    let data = view.data();
    let values: Vec<f64> = match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::I64 => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        Dtype::I32 => data.as_chunks::<4>().0.iter().map(|b| f64::from(i32::from_le_bytes(*b))).collect(),
        Dtype::U8 | Dtype::BOOL => data.iter().map(|b| f64::from(*b)).collect(),
        other => return Err(Error::new(Code::PackInvalid, format!("goldens of type {other:?} are unknown"))),
    };
    let integers = !matches!(view.dtype(), Dtype::F32 | Dtype::F16);
    Ok(Numbers { shape: view.shape().to_vec(), values, integers })
}

/// How one comparison came out.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) pass: bool,
    pub(super) text: String,
}

/// These decide discrete results: half the GPU's allowance.
const DECIDING: [&str; 4] = ["det.scores", "det.enc_class", "llm.logits", "llm.logits_last"];

impl Golden {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            cases: json(&dir.join("cases.json"))?,
            manifest: json(&dir.join("manifest.json"))?,
            expected: read(&dir.join("expected.safetensors"))?,
        })
    }

    /// Names of all golden tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.manifest["tensors"].as_object().map(|t| t.keys().cloned().collect()).unwrap_or_default()
    }

    /// The shape of a whole golden tensor.
    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        serde_json::from_value(self.manifest["tensors"][name]["shape"].clone()).unwrap_or_default()
    }

    /// A stored golden tensor.
    pub(super) fn get(&self, name: &str) -> Result<Numbers> {
        let file = parse(&self.expected)?;
        let view = file.tensor(name).map_err(|_| Error::new(Code::PackInvalid, "no such golden tensor").at(name))?;
        numbers(&view)
    }

    /// The part of a whole tensor that the goldens store; the tensor itself where they store it whole.
    pub(super) fn cut(&self, name: &str, whole: &Numbers) -> Option<Numbers> {
        let entry = self.manifest["tensors"].get(name)?;
        let Some(slice) = entry.get("slice") else { return Some(whole.clone()) };
        let slice: Vec<[usize; 3]> = serde_json::from_value(slice.clone()).ok()?;
        let fits = slice.len() == whole.shape.len() && slice.iter().zip(&whole.shape).all(|(s, n)| s[1] <= *n);
        fits.then(|| whole.cut(&slice))
    }

    /// Judges a whole tensor by section 13.
    pub(super) fn judge(&self, name: &str, got: &Numbers, gpu: bool) -> Result<Verdict> {
        let entry = &self.manifest["tensors"][name];
        let shape = self.shape(name);
        if shape.iter().product::<usize>() != got.values.len() {
            let text = format!("shape {:?}, expected {shape:?}", got.shape);
            return Ok(Verdict { pass: false, text });
        }
        let whole = Numbers { shape, ..got.clone() };
        let Some(part) = self.cut(name, &whole) else {
            return Ok(Verdict { pass: false, text: "the stored slice does not fit".to_owned() });
        };
        let want = self.get(name)?;
        if want.values.len() != part.values.len() {
            let text = format!("{} golden numbers are stored, expected {}", want.values.len(), part.values.len());
            return Ok(Verdict { pass: false, text });
        }
        if let Some(tie) = entry.get("near_tie") {
            let scores = self.get(tie["scores"].as_str().unwrap_or_default())?;
            let tol = tie["tol"].as_f64().unwrap_or(0.0) * if gpu { 5.0 } else { 1.0 };
            return Ok(near_tie(&want, &part, &scores, tol));
        }
        if entry["exact"].as_bool() == Some(true) {
            let bad = want.values.iter().zip(&part.values).filter(|(a, b)| a != b).count();
            let text = format!("{bad} of {} entries differ", want.values.len());
            return Ok(Verdict { pass: bad == 0, text });
        }
        let number = |key: &str| entry[key].as_f64().unwrap_or(0.0);
        let stage = name.rsplit('/').next().unwrap_or(name);
        let factor = match (gpu, DECIDING.contains(&stage)) {
            (false, _) => 1.0,
            (true, true) => 5.0,
            (true, false) => 10.0,
        };
        let limit = (20.0 * number("noise")).max(1e-5 * number("max_abs")) * factor;
        let mut error = 0f64;
        for (a, b) in want.values.iter().zip(&part.values) {
            if a.is_finite() && b.is_finite() {
                error = error.max((a - b).abs());
            } else if a.to_bits() != b.to_bits() {
                return Ok(Verdict { pass: false, text: "infinities or NaN at other places".to_owned() });
            }
        }
        Ok(Verdict { pass: error <= limit, text: format!("error {error:.3e}, limit {limit:.3e}") })
    }
}

/// A top-k whose neighbours lie too close for f32: any order is right that the golden scores allow.
fn near_tie(want: &Numbers, got: &Numbers, scores: &Numbers, tol: f64) -> Verdict {
    // an index without a score compares with nothing, and fails
    let score = |i: &f64| scores.values.get(*i as usize).copied().unwrap_or(f64::NAN);
    let of = |n: &Numbers| -> Vec<f64> { n.values.iter().map(score).collect() };
    let (s, w) = (of(got), of(want));
    let mut seen: Vec<u64> = got.values.iter().map(|v| *v as u64).collect();
    seen.sort_unstable();
    seen.dedup();
    let least = w.iter().copied().fold(f64::MAX, f64::min);
    let ok = seen.len() == want.values.len()
        && s.windows(2).all(|p| p[1] - p[0] <= tol)
        && s.iter().all(|v| *v >= least - tol);
    let differ = want.values.iter().zip(&got.values).filter(|(a, b)| a != b).count();
    Verdict { pass: ok, text: format!("{differ} of {} places differ, near ties within {tol:.3e}", want.values.len()) }
}
