//! The CPU device: what the twins read and write, and how a plan is walked there.
//!
//! Numbers are plain vectors; the crate gemm multiplies matrices where they lie.

use std::cell::RefCell;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use gemm::Parallelism;
#[cfg(not(target_arch = "wasm32"))]
use rayon::prelude::*;

use super::blocks;
use super::device::{Numerics, Storage, Tensor};
use super::int8::{self, Rounded};
use super::plan::{Plan, Run, Value};
use crate::error::{Error, Result};

/// The numbers of a tensor in this process.
#[derive(Debug)]
pub enum CpuData {
    /// f32 numbers.
    F32(Vec<f32>),
    /// Ids or state.
    U32(Vec<u32>),
    /// f16 or quantised blocks as files have them.
    Blocks(Vec<u8>),
}

impl CpuData {
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
            CpuData::Blocks(_) => Err(Error::internal("f32 numbers or ids expected")),
        }
    }

    /// The same, to be written.
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        match self {
            CpuData::F32(v) => Ok(bytemuck::cast_slice_mut(v)),
            CpuData::U32(v) => Ok(bytemuck::cast_slice_mut(v)),
            CpuData::Blocks(_) => Err(Error::internal("f32 numbers or ids expected")),
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
            CpuData::Blocks(bytes) => {
                let dtype = self.dtype();
                let row = dtype.row_bytes(cols)?;
                in_parts(out, cols, cols, |at, out| {
                    let first = first + at;
                    blocks::decode(dtype, &bytes[first * row..][..out.len() / cols * row], out);
                });
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
/// Numbers that a thread reads at least before another one is asked to help.
const PART: usize = 1 << 15;

/// Calls `each` for runs of whole rows of `out` (and the number of their first row), on all threads there are. Making a
/// row costs about `cost` numbers read.
pub(crate) fn in_parts(out: &mut [f32], row: usize, cost: usize, each: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = (PART / cost.max(1)).max(1);
    if cfg!(target_arch = "wasm32") || out.len() <= rows * row {
        each(0, out);
    } else {
        #[cfg(not(target_arch = "wasm32"))]
        out.par_chunks_mut(rows * row).enumerate().for_each(|(part, out)| each(part * rows, out));
    }
}

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
    if t < FEW_ROWS {
        let mut out = vec![0.0; t * count];
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(count)) {
            // with more rows the f32 product is faster, and closer
            vector_product(x, w, first, out, numerics)?;
        }
        return Ok(out);
    }
    let mut out = vec![0.0; t * count];
    let x = Matrix::new(x, t, k, k);
    if let CpuData::F32(v) = &*w.cpu()? {
        multiply(x, Matrix::new(&v[first * k..], count, k, k).transposed(), 1.0, &mut out, count);
        return Ok(out);
    }
    PANEL.with_borrow_mut(|panel| {
        let most = (PANEL_NUMBERS / k).max(1);
        for at in (0..count).step_by(most) {
            let rows = most.min(count - at);
            if panel.len() < rows * k {
                panel.resize(rows * k, 0.0);
            }
            w.decode_rows(first + at, rows, &mut panel[..rows * k])?;
            multiply(x, Matrix::new(panel, rows, k, k).transposed(), 1.0, &mut out[at..], count);
        }
        Ok(out)
    })
}

/// Decoded weights that wait in a processor's cache to be multiplied.
const PANEL_NUMBERS: usize = 1 << 19;

thread_local! {
    /// Kept: fresh pages cost more than what is written to them.
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `x [k] · w[first..first + out.len(), :]ᵀ`.
fn vector_product(x: &[f32], w: &Tensor, first: usize, out: &mut [f32], numerics: Numerics) -> Result<()> {
    let (k, dtype) = (x.len(), w.dtype());
    let row_bytes = dtype.row_bytes(k)?;
    match &*w.cpu()? {
        CpuData::F32(v) => in_parts(out, 1, k, |at, out| {
            let rows = v[(first + at) * k..].chunks_exact(k);
            out.iter_mut().zip(rows).for_each(|(o, row)| *o = dot(x, row));
        }),
        CpuData::Blocks(bytes) if numerics == Numerics::Fast && int8::reads(dtype) => {
            let x = Rounded::of(x);
            in_parts(out, 1, k, |at, out| {
                let rows = bytes[(first + at) * row_bytes..].chunks_exact(row_bytes);
                out.iter_mut().zip(rows).for_each(|(o, row)| *o = int8::dot(dtype, row, &x));
            });
        }
        CpuData::Blocks(bytes) => in_parts(out, 1, k, |at, out| {
            let mut numbers = vec![0.0; k];
            let rows = bytes[(first + at) * row_bytes..].chunks_exact(row_bytes);
            for (o, row) in out.iter_mut().zip(rows) {
                blocks::decode(dtype, row, &mut numbers);
                *o = dot(x, &numbers);
            }
        }),
        CpuData::U32(_) => return Err(Error::internal(format!("{} is no weight", w.label()))),
    }
    Ok(())
}

/// A matrix inside of other numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    cols: usize,
    /// From a row to the next, from a column to the next.
    steps: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `cols` numbers each, a row every `stride`.
    pub(crate) fn new(numbers: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || numbers.len() >= (rows - 1) * stride + cols, "a matrix lies inside of its numbers");
        Self { numbers, rows, cols, steps: [stride, 1] }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Rows as columns.
    pub(crate) fn transposed(self) -> Self {
        let [row, col] = self.steps;
        Self { rows: self.cols, cols: self.rows, steps: [col, row], ..self }
    }
}

/// `y = factor · a · b`, of which a row begins every `stride` numbers of `y`.
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, factor: f32, y: &mut [f32], stride: usize) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "matrices fit each other");
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && y.len() >= (m - 1) * stride + n, "the result has room");
    #[cfg(target_arch = "wasm32")]
    let threads = Parallelism::None;
    #[cfg(not(target_arch = "wasm32"))]
    let threads = match rayon::current_num_threads() {
        1 => Parallelism::None,
        n => Parallelism::Rayon(n),
    };
    let [a_row, a_col] = a.steps.map(usize::cast_signed);
    let [b_row, b_col] = b.steps.map(usize::cast_signed);
    let (a, b, y, row) = (a.numbers.as_ptr(), b.numbers.as_ptr(), y.as_mut_ptr(), stride.cast_signed());
    // SAFETY: `Matrix::new` and the assertion above see to it that every number read and written lies inside its slice,
    // and that no row of the result overlaps another.
    unsafe {
        gemm::gemm(
            m, n, k, y, 1, row, false, a, a_col, a_row, b, b_col, b_row, 0.0, factor, false, false, false, threads,
        );
    }
}

/// The sum of what `of` makes of every number, in eight lanes of f64.
pub(crate) fn sum(x: &[f32], of: impl Fn(f64) -> f64) -> f64 {
    let (chunks, tail) = x.as_chunks::<8>();
    let lanes = chunks.iter().fold([0f64; 8], |s, c| std::array::from_fn(|i| s[i] + of(f64::from(c[i]))));
    lanes.iter().sum::<f64>() + tail.iter().map(|v| of(f64::from(*v))).sum::<f64>()
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
