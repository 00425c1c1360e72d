//! The decoder's gated feed-forward up to its last matrix: `silu(gate · n) · (up · n)` with `n = RMSNorm(x)`.

use super::{act::sigmoid, norm, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

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
pub fn gate_up(p: &mut Plan, x: Value, norm: Option<(&Tensor, f32)>, weight: &Tensor) -> Result<Value> {
    want_size(p.cols(x), weight.cols(), weight.label())?;
    let rows = p.rows(x);
    let y = p.temp(&[rows, weight.rows() / 2]);
    p.push(GateUp { x, y, norm: norm.map(|(w, e)| (w.clone(), e)), weight: weight.clone(), rows }, &[x], &[y]);
    Ok(y)
}

/// Inner columns of one unit of the twin when there are many rows.
const UNIT: usize = 512;

impl Op for GateUp {
    fn name(&self) -> &'static str {
        "gate_up"
    }

    fn units(&self, _plan: &Plan) -> usize {
        if self.rows < 16 { 1 } else { (self.weight.rows() / 2).div_ceil(UNIT) }
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let inner = self.weight.rows() / 2;
        let x = match &self.norm {
            Some((w, eps)) => norm::rms_rows(&io.f32(self.x)?, &w.numbers()?, *eps),
            None => io.f32(self.x)?.to_vec(),
        };
        let mut y = io.f32_mut(self.y)?;
        if self.rows < 16 {
            let both = cpu::product(&x, self.rows, &self.weight, 0, 2 * inner, io.numerics)?;
            for (y, both) in y.chunks_exact_mut(inner).zip(both.chunks_exact(2 * inner)) {
                for i in 0..inner {
                    y[i] = both[i] * sigmoid(both[i]) * both[inner + i];
                }
            }
            return Ok(());
        }
        let first = unit * UNIT;
        let count = UNIT.min(inner - first);
        let gate = cpu::product(&x, self.rows, &self.weight, first, count, io.numerics)?;
        let up = cpu::product(&x, self.rows, &self.weight, inner + first, count, io.numerics)?;
        for r in 0..self.rows {
            for c in 0..count {
                let g = gate[r * count + c];
                y[r * inner + first + c] = g * sigmoid(g) * up[r * count + c];
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.gate_up(self)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.bytes() as u64
    }
}
