//! The decoder's gated feed-forward up to its last matrix: `silu(gate · n) · (up · n)` with `n = RMSNorm(x)`.

use super::{act::sigmoid, linear, norm, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::{Lower, kernels, size, variants};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, COLUMNS_FIRST, Tiles};

#[derive(Debug)]
pub(crate) struct GateUp {
    pub(crate) x: Value,
    pub(crate) y: Value,
    /// RMS norm weight; absent where `x` is normed already.
    pub(crate) norm: Option<(Tensor, f32)>,
    /// Gate rows, then up rows.
    pub(crate) weight: Tensor,
    pub(crate) rows: usize,
}

/// `x [rows, hidden]`, `weight [2 · inner, hidden]` (gate rows first) → `[rows, inner]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn gate_up(p: &mut Plan, x: Value, norm: Option<(&Tensor, f32)>, weight: &Tensor) -> Result<Value> {
    want_size(p.cols(x), weight.cols(), weight.label())?;
    let rows = p.rows(x);
    let y = p.temp(&[rows, weight.rows() / 2]);
    p.push(GateUp { x, y, norm: norm.map(|(w, e)| (w.clone(), e)), weight: weight.clone(), rows }, &[x], &[y]);
    Ok(y)
}

impl GateUp {
    /// What so many rows and inner columns cost: the norm of the rows, two products, the gate.
    fn tile_cost(&self, rows: usize, inner: usize) -> u64 {
        let k = self.weight.cols();
        (rows * k) as u64 * 2 * units::MOVED + 2 * units::product(rows, inner, k) + (rows * inner) as u64 * units::SOFT
    }

    fn tiles(&self) -> Tiles {
        Tiles::new(self.rows, self.weight.rows() / 2, &COLUMNS_FIRST, |rows, cols| self.tile_cost(rows, cols))
    }
}

impl Op for GateUp {
    fn name(&self) -> &'static str {
        "gate_up"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.tile_cost(self.rows, self.weight.rows() / 2)
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.tiles().count()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (inner, k) = (self.weight.rows() / 2, self.weight.cols());
        let (rows, mine) = self.tiles().tile(unit);
        let x = &io.f32(self.x)?[rows.start * k..rows.end * k];
        let x = match &self.norm {
            Some((w, eps)) => norm::rms_rows(x, &w.numbers()?, *eps),
            None => x.to_vec(),
        };
        let mut y = io.f32_mut(self.y)?;
        let y = y[rows.start * inner..rows.end * inner].chunks_exact_mut(inner);
        let product = |first, count| cpu::product(&x, rows.len(), &self.weight, first, count, io.numerics);
        let gated = |y: &mut [f32], gate: &[f32], up: &[f32]| {
            y.iter_mut().zip(gate).zip(up).for_each(|((y, g), u)| *y = g * sigmoid(*g) * u);
        };
        if mine.len() == inner {
            // one product: threads are asked once
            let both = product(0, 2 * inner)?;
            y.zip(both.chunks_exact(2 * inner)).for_each(|(y, both)| gated(y, &both[..inner], &both[inner..]));
            return Ok(());
        }
        let (gate, up) = (product(mine.start, mine.len())?, product(inner + mine.start, mine.len())?);
        for ((y, gate), up) in y.zip(gate.chunks_exact(mine.len())).zip(up.chunks_exact(mine.len())) {
            gated(&mut y[mine.clone()], gate, up);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let (x, y) = (lower.read(self.x)?, lower.write(self.y)?);
        let inner = self.weight.rows() / 2;
        let mut slices = lower.weight(&self.weight)?;
        if let (1, 1, Some((norm, eps)), Some(w)) = (self.rows, slices.len(), &self.norm, slices.pop()) {
            let format = Lower::format(&self.weight);
            let lanes = variants::matvec_lanes(lower.traits(), format, self.weight.cols());
            let kernel = kernels::gate_up::GateUp {
                format,
                lanes: if lanes == 1 { kernels::gate_up::Lanes::Lone } else { kernels::gate_up::Lanes::Split },
                w: w.read,
                x,
                norm: lower.vector(norm)?,
                y,
                params: kernels::gate_up::Params {
                    k: size(self.weight.cols())?,
                    scales: size(w.slice.scales)?,
                    lanes: size(lanes)?,
                    inner: size(inner)?,
                    eps: *eps,
                },
            };
            lower.dispatch(kernel, (inner * lanes).div_ceil(64));
            return Ok(());
        }
        let mut x = x;
        if let Some((weight, eps)) = &self.norm {
            let normed = lower.scratch(self.rows * self.weight.cols())?;
            norm::rms(lower, x, self.rows, (weight, *eps), normed.write())?;
            x = normed.read();
        }
        let both = lower.scratch(self.rows * 2 * inner)?;
        linear::product(lower, &x, self.rows, &self.weight, &linear::Epilogue::none(), &both.write())?;
        let params = kernels::swiglu::Params { rows: size(self.rows)?, inner: size(inner)? };
        lower.each(kernels::swiglu::Swiglu { x: both.read(), y, params }, self.rows * inner)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.bytes() as u64
    }
}
