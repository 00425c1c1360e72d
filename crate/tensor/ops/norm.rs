//! Layer norm (optionally of a sum), RMS norm and group norm. Statistics in f64 on the CPU: they are few and exact.

use super::{Act, want_size};
use crate::error::Result;
use crate::tensor::cpu::CpuIo;
use crate::tensor::device::Tensor;
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub(crate) x: Value,
    pub(crate) plus: Option<Value>,
    pub(crate) y: Value,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) eps: f32,
    /// `max(x, 0)` before the norm (the region encoder's position branch).
    pub(crate) relu_first: bool,
    /// Applied to the result (the finest level of the proposer).
    pub(crate) act: Act,
}

/// `LN(x + plus)` over the last axis, variance biased.
pub fn layer_norm(
    p: &mut Plan,
    x: Value,
    plus: Option<Value>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<Value> {
    norm(p, (x, plus), (weight, bias), eps, false, Act::None)
}

/// `LN(max(x, 0))`.
pub fn relu_layer_norm(p: &mut Plan, x: Value, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Value> {
    norm(p, (x, None), (weight, bias), eps, true, Act::None)
}

/// `act(LN(x))`.
pub fn layer_norm_act(p: &mut Plan, x: Value, weight: &Tensor, bias: &Tensor, eps: f32, act: Act) -> Result<Value> {
    norm(p, (x, None), (weight, bias), eps, false, act)
}

fn norm(
    p: &mut Plan,
    (x, plus): (Value, Option<Value>),
    (weight, bias): (&Tensor, &Tensor),
    eps: f32,
    relu_first: bool,
    act: Act,
) -> Result<Value> {
    want_size(weight.len(), p.cols(x), weight.label())?;
    want_size(bias.len(), p.cols(x), bias.label())?;
    let y = p.temp(&p.shape(x).to_vec());
    let mut reads = vec![x];
    if let Some(v) = plus {
        super::want(p, v, &p.shape(x).to_vec(), "the sum's second term")?;
        reads.push(v);
    }
    p.push(LayerNorm { x, plus, y, weight: weight.clone(), bias: bias.clone(), eps, relu_first, act }, &reads, &[y]);
    Ok(y)
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (w, b) = (self.weight.numbers()?, self.bias.numbers()?);
        let n = w.len();
        let x = io.f32(self.x)?;
        let plus = self.plus.map(|v| io.f32(v)).transpose()?;
        let mut y = io.f32_mut(self.y)?;
        y.copy_from_slice(&x);
        if let Some(plus) = plus {
            y.iter_mut().zip(plus.iter()).for_each(|(y, p)| *y += p);
        }
        for row in y.chunks_exact_mut(n) {
            if self.relu_first {
                row.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let mean = (row.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64) as f32;
            let var = row.iter().map(|v| f64::from(v - mean) * f64::from(v - mean)).sum::<f64>() / n as f64;
            let inv = (1.0 / (var + f64::from(self.eps)).sqrt()) as f32;
            for ((v, w), b) in row.iter_mut().zip(w.iter()).zip(b.iter()) {
                *v = self.act.apply((*v - mean) * inv * w + b);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.layer_norm(self)
    }
}

#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) weight: Tensor,
    pub(crate) eps: f32,
}

/// `x / rms(x) · w` over the last axis.
pub fn rms_norm(p: &mut Plan, x: Value, weight: &Tensor, eps: f32) -> Result<Value> {
    want_size(weight.len(), p.cols(x), weight.label())?;
    let y = p.temp(&p.shape(x).to_vec());
    p.push(RmsNorm { x, y, weight: weight.clone(), eps }, &[x], &[y]);
    Ok(y)
}

/// The twin of one RMS norm over rows of `w.len()` numbers.
pub(crate) fn rms_rows(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(w.len()) {
        let square = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / w.len() as f64;
        let inv = (1.0 / (square + f64::from(eps)).sqrt()) as f32;
        row.iter_mut().zip(w).for_each(|(v, w)| *v = *v * inv * w);
    }
    y
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        io.f32_mut(self.y)?.copy_from_slice(&rms_rows(&io.f32(self.x)?, &self.weight.numbers()?, self.eps));
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.rms_norm(self)
    }
}

#[derive(Debug)]
pub(crate) struct GroupNorm {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    pub(crate) relu: bool,
}

/// Group norm of a map `[pixels, channels]`, then `max(·, 0)`: group g holds channels `g·C/groups ..`, statistics over
/// those channels and all pixels.
pub fn group_norm_relu(
    p: &mut Plan,
    x: Value,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f32,
) -> Result<Value> {
    group_norm(p, x, weight, bias, groups, eps, true)
}

pub(crate) fn group_norm(
    p: &mut Plan,
    x: Value,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f32,
    relu: bool,
) -> Result<Value> {
    want_size(weight.len(), p.cols(x), weight.label())?;
    want_size(p.cols(x) % groups, 0, "channels left over by groups")?;
    let y = p.temp(&p.shape(x).to_vec());
    p.push(GroupNorm { x, y, weight: weight.clone(), bias: bias.clone(), groups, eps, relu }, &[x], &[y]);
    Ok(y)
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (w, b) = (self.weight.numbers()?, self.bias.numbers()?);
        let c = w.len();
        let size = c / self.groups;
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        let count = (x.len() / self.groups) as f64;
        for g in 0..self.groups {
            let range = g * size..(g + 1) * size;
            let sum: f64 = x.chunks_exact(c).flat_map(|r| &r[range.clone()]).map(|v| f64::from(*v)).sum();
            let mean = sum / count;
            let var: f64 =
                x.chunks_exact(c).flat_map(|r| &r[range.clone()]).map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>()
                    / count;
            let inv = 1.0 / (var + f64::from(self.eps)).sqrt();
            for (from, to) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
                for i in range.clone() {
                    let v = ((f64::from(from[i]) - mean) * inv) as f32 * w[i] + b[i];
                    to[i] = if self.relu { v.max(0.0) } else { v };
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.group_norm(self)
    }
}
