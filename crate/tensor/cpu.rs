//! The CPU device: what the twins read and write, and how a plan is walked there.
//!
//! Numbers are plain vectors; candle multiplies matrices and holds quantised ones.

use std::borrow::Cow;
use std::sync::{OnceLock, RwLockReadGuard, RwLockWriteGuard};

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device as Candle, Module};

use super::blocks::{self, DType};
use super::device::{Numerics, Storage, Tensor};
use super::plan::{Plan, Run, Value};
use crate::error::{Error, Result};

/// The numbers of a tensor in this process.
#[derive(Debug)]
pub enum CpuData {
    /// f32 numbers.
    F32(Vec<f32>),
    /// Ids or state.
    U32(Vec<u32>),
    /// f16 or quantised blocks as files have them, and candle's copy of them once `fast` numerics asked for it.
    Blocks {
        /// The bytes.
        bytes: Vec<u8>,
        /// candle's form.
        quantised: OnceLock<QMatMul>,
    },
}

impl CpuData {
    pub(crate) fn blocks(bytes: Vec<u8>) -> Self {
        CpuData::Blocks { bytes, quantised: OnceLock::new() }
    }

    pub(crate) fn f32(&self) -> Result<&[f32]> {
        match self {
            CpuData::F32(v) => Ok(v),
            _ => Err(Error::internal("f32 numbers expected")),
        }
    }

    pub(crate) fn f32_mut(&mut self) -> Result<&mut [f32]> {
        match self {
            CpuData::F32(v) => Ok(v),
            _ => Err(Error::internal("f32 numbers expected")),
        }
    }

    pub(crate) fn u32(&self) -> Result<&[u32]> {
        match self {
            CpuData::U32(v) => Ok(v),
            _ => Err(Error::internal("ids expected")),
        }
    }

    /// f32 numbers or ids as bytes.
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        match self {
            CpuData::F32(v) => Ok(bytemuck::cast_slice(v)),
            CpuData::U32(v) => Ok(bytemuck::cast_slice(v)),
            CpuData::Blocks { .. } => Err(Error::internal("f32 numbers or ids expected")),
        }
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        match self {
            CpuData::F32(v) => Ok(bytemuck::cast_slice_mut(v)),
            CpuData::U32(v) => Ok(bytemuck::cast_slice_mut(v)),
            CpuData::Blocks { .. } => Err(Error::internal("f32 numbers or ids expected")),
        }
    }

    pub(crate) fn u32_mut(&mut self) -> Result<&mut [u32]> {
        match self {
            CpuData::U32(v) => Ok(v),
            _ => Err(Error::internal("ids expected")),
        }
    }
}

impl Tensor {
    /// A read lock on the numbers of a tensor of the CPU device.
    pub(crate) fn cpu(&self) -> Result<RwLockReadGuard<'_, CpuData>> {
        match self.storage() {
            Storage::Cpu(cell) => Ok(cell.read().expect("no twin panics while it writes")),
            Storage::Gpu(_) => Err(Error::internal(format!("{} lives on a GPU", self.label()))),
        }
    }

    pub(crate) fn cpu_mut(&self) -> Result<RwLockWriteGuard<'_, CpuData>> {
        match self.storage() {
            Storage::Cpu(cell) => Ok(cell.write().expect("no twin panics while it writes")),
            Storage::Gpu(_) => Err(Error::internal(format!("{} lives on a GPU", self.label()))),
        }
    }

    /// Rows `first..first + count` of a weight as f32 numbers.
    pub(crate) fn decode_rows(&self, first: usize, count: usize, out: &mut [f32]) -> Result<()> {
        let cols = self.cols();
        match &*self.cpu()? {
            CpuData::F32(v) => out.copy_from_slice(&v[first * cols..(first + count) * cols]),
            CpuData::Blocks { bytes, .. } => {
                let row = self.dtype().row_bytes(cols)?;
                blocks::decode(self.dtype(), &bytes[first * row..(first + count) * row], out);
            }
            CpuData::U32(_) => return Err(Error::internal(format!("{} is no weight", self.label()))),
        }
        Ok(())
    }

    /// A whole weight as f32 numbers (vectors, small tables).
    pub(crate) fn decode_all(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.len()];
        self.decode_rows(0, self.rows(), &mut out)?;
        Ok(out)
    }
}

/// A locked f32 view.
pub(crate) struct Numbers<'a>(RwLockReadGuard<'a, CpuData>);

impl std::ops::Deref for Numbers<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.0.f32().expect("checked when the lock was taken")
    }
}

/// A locked, writable f32 view.
pub(crate) struct NumbersMut<'a>(RwLockWriteGuard<'a, CpuData>);

impl std::ops::Deref for NumbersMut<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.0.f32().expect("checked when the lock was taken")
    }
}

impl std::ops::DerefMut for NumbersMut<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.f32_mut().expect("checked when the lock was taken")
    }
}

impl Tensor {
    pub(crate) fn numbers(&self) -> Result<Numbers<'_>> {
        let guard = self.cpu()?;
        guard.f32().map_err(|e| e.at(self.label()))?;
        Ok(Numbers(guard))
    }

    pub(crate) fn numbers_mut(&self) -> Result<NumbersMut<'_>> {
        let mut guard = self.cpu_mut()?;
        guard.f32_mut().map_err(|e| e.at(self.label()))?;
        Ok(NumbersMut(guard))
    }

    pub(crate) fn ids(&self) -> Result<Vec<u32>> {
        Ok(self.cpu()?.u32().map_err(|e| e.at(self.label()))?.to_vec())
    }
}

/// What a twin sees: the values of its plan.
pub struct CpuIo<'a> {
    plan: &'a Plan,
    temps: &'a [Option<Tensor>],
    /// How quantised products are made.
    pub numerics: Numerics,
}

impl CpuIo<'_> {
    fn tensor(&self, v: Value) -> Result<&Tensor> {
        let info = self.plan.info(v);
        info.resident
            .as_ref()
            .or_else(|| self.temps[v.index()].as_ref())
            .ok_or_else(|| Error::internal(format!("value {} is read before it is written", v.index())))
    }

    /// The shape of a value.
    #[must_use]
    pub fn shape(&self, v: Value) -> &[usize] {
        &self.plan.info(v).shape
    }

    pub(crate) fn f32(&self, v: Value) -> Result<Numbers<'_>> {
        self.tensor(v)?.numbers()
    }

    pub(crate) fn f32_mut(&self, v: Value) -> Result<NumbersMut<'_>> {
        self.tensor(v)?.numbers_mut()
    }

    pub(crate) fn ids(&self, v: Value) -> Result<Vec<u32>> {
        self.tensor(v)?.ids()
    }

    pub(crate) fn ids_mut(&self, v: Value) -> Result<RwLockWriteGuard<'_, CpuData>> {
        self.tensor(v)?.cpu_mut()
    }
}

/// Walks a plan step by step, unit by unit; stops or breathes between units; tells `done` every step that is.
pub(super) async fn run(plan: &Plan, numerics: Numerics, ctx: &Run<'_>, done: &mut dyn FnMut(usize)) -> Result<()> {
    let mut temps: Vec<Option<Tensor>> = vec![None; plan.values().len()];
    let last = plan.last_uses();
    let device = super::Device::Cpu(numerics);
    for (s, step) in plan.steps().iter().enumerate() {
        for v in &step.writes {
            let info = plan.info(*v);
            if info.resident.is_none() && temps[v.index()].is_none() {
                temps[v.index()] = Some(device.zeros(&step.label, &info.shape, info.dtype)?);
            }
        }
        let units = step.op.units(plan);
        for unit in 0..units {
            ctx.breathe().await?;
            let io = CpuIo { plan, temps: &temps, numerics };
            step.op.cpu(&io, unit).map_err(|e| e.at(step.op.name()).at(&step.label))?;
        }
        for v in step.reads.iter().chain(&step.writes) {
            if last[v.index()] == s {
                temps[v.index()] = None;
            }
        }
        done(s);
        ctx.progress(s + 1, plan.steps().len());
    }
    Ok(())
}

/// Up to so many rows a packed multiplication does not pay.
const FEW_ROWS: usize = 4;

/// `x [t, k] · w[first..first + count, :]ᵀ` into a fresh `[t, count]` vector.
pub(crate) fn product(
    x: &[f32],
    t: usize,
    w: &Tensor,
    first: usize,
    count: usize,
    numerics: Numerics,
) -> Result<Vec<f32>> {
    let k = w.cols();
    // with more rows the f32 product is faster, and closer
    let fast = numerics == Numerics::Fast && t < FEW_ROWS && first == 0 && count == w.rows();
    if fast && let Some(y) = quantised_product(x, t, w)? {
        return Ok(y);
    }
    if t < FEW_ROWS {
        return few_rows(x, t, w, first, count);
    }
    let mut panel = vec![0.0; count * k];
    w.decode_rows(first, count, &mut panel)?;
    matmul_t(x, &panel, t, k, count)
}

/// `a [m, k] · b [n, k]ᵀ` by candle.
pub(crate) fn matmul_t(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Result<Vec<f32>> {
    let a = candle_core::Tensor::from_slice(a, (m, k), &Candle::Cpu)?;
    let b = candle_core::Tensor::from_slice(b, (n, k), &Candle::Cpu)?;
    Ok(a.matmul(&b.t()?)?.flatten_all()?.to_vec1()?)
}

/// `a [m, k] · b [k, n]` by candle.
pub(crate) fn matmul(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Result<Vec<f32>> {
    let a = candle_core::Tensor::from_slice(a, (m, k), &Candle::Cpu)?;
    let b = candle_core::Tensor::from_slice(b, (k, n), &Candle::Cpu)?;
    Ok(a.matmul(&b)?.flatten_all()?.to_vec1()?)
}

/// A product with so few rows that a packed multiplication does not pay: row by row, decoded once.
fn few_rows(x: &[f32], t: usize, w: &Tensor, first: usize, count: usize) -> Result<Vec<f32>> {
    let k = w.cols();
    let mut out = vec![0.0; t * count];
    let data = w.cpu()?;
    let row_bytes = w.dtype().row_bytes(k)?;
    let mut scratch = vec![0.0; k];
    for n in 0..count {
        let row: Cow<'_, [f32]> = match &*data {
            CpuData::F32(v) => Cow::Borrowed(&v[(first + n) * k..(first + n + 1) * k]),
            CpuData::Blocks { bytes, .. } => {
                blocks::decode(w.dtype(), &bytes[(first + n) * row_bytes..(first + n + 1) * row_bytes], &mut scratch);
                Cow::Borrowed(&scratch)
            }
            CpuData::U32(_) => return Err(Error::internal(format!("{} is no weight", w.label()))),
        };
        for i in 0..t {
            out[i * count + n] = dot(&x[i * k..(i + 1) * k], &row);
        }
    }
    Ok(out)
}

/// A dot product in sixteen lanes, so that compilers make vector code of it and rounding stays small.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a16, a_rest) = a.as_chunks::<16>();
    let (b16, b_rest) = b.as_chunks::<16>();
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    let tail: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + tail
}

fn quantised_product(x: &[f32], t: usize, w: &Tensor) -> Result<Option<Vec<f32>>> {
    let kind = match w.dtype() {
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        _ => return Ok(None),
    };
    let data = w.cpu()?;
    let CpuData::Blocks { bytes, quantised } = &*data else { return Ok(None) };
    if quantised.get().is_none() {
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Candle::Cpu, kind)?;
        let q = QMatMul::from_qtensor(QTensor::new(storage, (w.rows(), w.cols()))?)?;
        // another thread may have been first; both are the same
        let _ = quantised.set(q);
    }
    let q = quantised.get().expect("set above");
    let x = candle_core::Tensor::from_slice(x, (t, w.cols()), &Candle::Cpu)?;
    Ok(Some(q.forward(&x)?.flatten_all()?.to_vec1()?))
}
