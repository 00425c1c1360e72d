//! `y = residual + scale · act(x · Wᵀ + bias)`: every matrix product of the model with its epilogue.

use super::{Act, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::{Numerics, Tensor};
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

/// A linear layer `[out, in]` with what is folded into it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The matrix, `[out, in]`, in any weight type.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Applied after the bias.
    pub act: Act,
    /// Layer scale, `[out]`, multiplied after the activation.
    pub scale: Option<Tensor>,
    /// `[rows, out]`, added last.
    pub residual: Option<Value>,
}

impl Linear {
    /// A plain product with an optional bias.
    #[must_use]
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        Self { weight: weight.clone(), bias: bias.cloned(), act: Act::None, scale: None, residual: None }
    }

    /// With an activation.
    #[must_use]
    pub fn act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    /// With a layer scale.
    #[must_use]
    pub fn scale(mut self, scale: &Tensor) -> Self {
        self.scale = Some(scale.clone());
        self
    }

    /// With a residual.
    #[must_use]
    pub fn residual(mut self, residual: Value) -> Self {
        self.residual = Some(residual);
        self
    }
}

#[derive(Debug)]
pub(crate) struct LinearOp {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) rows: usize,
    pub(crate) layer: Linear,
}

/// `x [rows, in]` (leading axes are flattened) → `[rows, out]`.
pub fn linear(p: &mut Plan, x: Value, layer: Linear) -> Result<Value> {
    let y = p.temp(&[p.rows(x), layer.weight.rows()]);
    record(p, x, layer, y)?;
    Ok(y)
}

/// The same into a tensor that outlives the plan, `[rows, out]`.
pub fn linear_into(p: &mut Plan, x: Value, layer: &Linear, y: &Tensor) -> Result<()> {
    let shape = [p.rows(x), layer.weight.rows()];
    let y = p.resident(y);
    super::want(p, y, &shape, "the place of the result")?;
    record(p, x, layer.clone(), y)
}

fn record(p: &mut Plan, x: Value, layer: Linear, y: Value) -> Result<()> {
    let (rows, out) = (p.rows(x), layer.weight.rows());
    want_size(p.cols(x), layer.weight.cols(), layer.weight.label())?;
    for v in [&layer.bias, &layer.scale].into_iter().flatten() {
        want_size(v.len(), out, v.label())?;
    }
    let mut reads = vec![x];
    if let Some(r) = layer.residual {
        super::want(p, r, &[rows, out], "the residual")?;
        reads.push(r);
    }
    p.push(LinearOp { x, y, rows, layer }, &reads, &[y]);
    Ok(())
}

/// Multiply-adds of one unit of the twin: about 20 ms in wasm on one core.
const UNIT: usize = 200_000_000;

impl LinearOp {
    /// Columns of the result that one unit makes.
    fn panel(&self) -> usize {
        let per_column = (self.rows * self.layer.weight.cols()).max(1);
        (UNIT / per_column).next_multiple_of(16).clamp(16, self.layer.weight.rows().max(16))
    }
}

impl Op for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.layer.weight.rows().div_ceil(self.panel())
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let w = &self.layer.weight;
        let out = w.rows();
        let first = unit * self.panel();
        let count = self.panel().min(out - first);
        let x = io.f32(self.x)?;
        let numerics = if self.units_are_whole() { io.numerics } else { Numerics::Exact };
        let product = cpu::product(&x, self.rows, w, first, count, numerics)?;
        let bias = self.layer.bias.as_ref().map(Tensor::numbers).transpose()?;
        let scale = self.layer.scale.as_ref().map(Tensor::numbers).transpose()?;
        let residual = self.layer.residual.map(|r| io.f32(r)).transpose()?;
        let mut y = io.f32_mut(self.y)?;
        for row in 0..self.rows {
            for (c, v) in product[row * count..(row + 1) * count].iter().enumerate() {
                let n = first + c;
                let mut v = self.layer.act.apply(v + bias.as_ref().map_or(0.0, |b| b[n]));
                if let Some(s) = &scale {
                    v *= s[n];
                }
                y[row * out + n] = residual.as_ref().map_or(0.0, |r| r[row * out + n]) + v;
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.linear(self)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.layer.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.layer.weight.bytes() as u64
    }
}

impl LinearOp {
    fn units_are_whole(&self) -> bool {
        self.panel() >= self.layer.weight.rows()
    }
}
