//! Layer norm (optionally of a sum), RMS norm and group norm. Statistics in f64 on the CPU: they are few and exact.

use super::{Act, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::{self, Read, Write};
use crate::tensor::gpu::{Lower, size, variants};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, Cut};

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
///
/// # Errors
/// `internal` where the shapes do not fit.
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
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn relu_layer_norm(p: &mut Plan, x: Value, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Value> {
    norm(p, (x, None), (weight, bias), eps, true, Act::None)
}

/// `act(LN(x))`.
///
/// # Errors
/// `internal` where the shapes do not fit.
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
    let y = p.temp_like(x);
    let mut reads = vec![x];
    if let Some(v) = plus {
        super::want(p, v, p.shape(x), "the sum's second term")?;
        reads.push(v);
    }
    p.push(LayerNorm { x, plus, y, weight: weight.clone(), bias: bias.clone(), eps, relu_first, act }, &reads, &[y]);
    Ok(y)
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        2 * units::moved(plan, &[self.y])
    }

    fn units(&self, plan: &Plan) -> usize {
        Cut::by_cost(plan.rows(self.y), self.cost(plan)).parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (w, b) = (self.weight.numbers()?, self.bias.numbers()?);
        let n = w.len();
        let x = io.f32(self.x)?;
        let plus = self.plus.map(|v| io.f32(v)).transpose()?;
        let mut y = io.f32_mut(self.y)?;
        let rows = io.part(self, y.len() / n, unit);
        let mine = rows.start * n..rows.end * n;
        let y = &mut y[mine.clone()];
        y.copy_from_slice(&x[mine.clone()]);
        if let Some(plus) = plus {
            y.iter_mut().zip(&plus[mine]).for_each(|(y, p)| *y += p);
        }
        let (relu_first, eps, act) = (self.relu_first, self.eps, self.act);
        let (w, b): (&[f32], &[f32]) = (&w, &b);
        cpu::in_parts(y, n, 4 * n, |_, y| {
            for row in y.chunks_exact_mut(n) {
                if relu_first {
                    Act::Relu.apply_to(row);
                }
                let mean = (cpu::sum(row, |v| v) / n as f64) as f32;
                row.iter_mut().for_each(|v| *v -= mean);
                let var = cpu::sum(row, |v| v * v) / n as f64;
                let inv = (1.0 / (var + f64::from(eps)).sqrt()) as f32;
                row.iter_mut().zip(w).zip(b).for_each(|((v, w), b)| *v = *v * inv * w + b);
                act.apply_to(row);
            }
        });
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let rows = lower.rows(self.x);
        let lanes = variants::norm_lanes(lower.traits());
        let kernel = kernels::norm::Norm {
            form: kernels::norm::Form::Layer,
            lanes,
            x: lower.read(self.x)?,
            plus: lower.read_or_none(self.plus)?,
            weight: lower.vector(&self.weight)?,
            bias: lower.vector(&self.bias)?,
            y: lower.write(self.y)?,
            params: kernels::norm::Params {
                rows: size(rows)?,
                cols: size(self.weight.len())?,
                flags: u32::from(self.plus.is_some()) + 2 * u32::from(self.relu_first),
                act: self.act as u32,
                eps: self.eps,
            },
        };
        lower.dispatch(kernel, groups(lanes, rows));
        Ok(())
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
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn rms_norm(p: &mut Plan, x: Value, weight: &Tensor, eps: f32) -> Result<Value> {
    want_size(weight.len(), p.cols(x), weight.label())?;
    let y = p.temp_like(x);
    p.push(RmsNorm { x, y, weight: weight.clone(), eps }, &[x], &[y]);
    Ok(y)
}

/// The twin of one RMS norm over rows of `w.len()` numbers.
pub(crate) fn rms_rows(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(w.len()) {
        let square = cpu::sum(row, |v| v * v) / w.len() as f64;
        let inv = (1.0 / (square + f64::from(eps)).sqrt()) as f32;
        row.iter_mut().zip(w).for_each(|(v, w)| *v = *v * inv * w);
    }
    y
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        2 * units::moved(plan, &[self.y])
    }

    fn units(&self, plan: &Plan) -> usize {
        Cut::by_cost(plan.rows(self.y), self.cost(plan)).parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (x, w) = (io.f32(self.x)?, self.weight.numbers()?);
        let rows = io.part(self, x.len() / w.len(), unit);
        let mine = rows.start * w.len()..rows.end * w.len();
        io.f32_mut(self.y)?[mine.clone()].copy_from_slice(&rms_rows(&x[mine], &w, self.eps));
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let (x, y) = (lower.read(self.x)?, lower.write(self.y)?);
        let rows = lower.rows(self.x);
        rms(lower, x, rows, (&self.weight, self.eps), y)
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
///
/// # Errors
/// `internal` where the shapes do not fit.
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
    let y = p.temp_like(x);
    p.push(GroupNorm { x, y, weight: weight.clone(), bias: bias.clone(), groups, eps, relu }, &[x], &[y]);
    Ok(y)
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        // twice through the map for the statistics
        4 * units::moved(plan, &[self.y])
    }

    fn units(&self, plan: &Plan) -> usize {
        Cut::by_cost(self.groups, self.cost(plan)).parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (w, b) = (self.weight.numbers()?, self.bias.numbers()?);
        let c = w.len();
        let size = c / self.groups;
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        let groups = io.part(self, self.groups, unit);
        let mine = groups.start * size..groups.end * size;
        let (w, b) = (&w[mine.clone()], &b[mine.clone()]);
        // a mean over its group for every channel
        let means = |of: &dyn Fn(usize, f32) -> f64| {
            let mut sums = vec![0f64; mine.len()];
            for row in x.chunks_exact(c) {
                let row = &row[mine.clone()];
                sums.iter_mut().zip(row).enumerate().for_each(|(i, (s, v))| *s += of(i, *v));
            }
            for group in sums.chunks_exact_mut(size) {
                let mean = group.iter().sum::<f64>() * self.groups as f64 / x.len() as f64;
                group.fill(mean);
            }
            sums
        };
        let mean = means(&|_, v| f64::from(v));
        let inverse = means(&|i, v| (f64::from(v) - mean[i]).powi(2)).into_iter();
        let inverse: Vec<f64> = inverse.map(|var| 1.0 / (var + f64::from(self.eps)).sqrt()).collect();
        for (from, to) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            let (from, to) = (&from[mine.clone()], &mut to[mine.clone()]);
            for i in 0..mine.len() {
                to[i] = ((f64::from(from[i]) - mean[i]) * inverse[i]) as f32 * w[i] + b[i];
            }
            if self.relu {
                Act::Relu.apply_to(to);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let channels = self.weight.len();
        let kernel = kernels::group_norm::GroupNorm {
            x: lower.read(self.x)?,
            weight: lower.vector(&self.weight)?,
            bias: lower.vector(&self.bias)?,
            y: lower.write(self.y)?,
            params: kernels::group_norm::Params {
                pixels: size(lower.rows(self.x))?,
                channels: size(channels)?,
                size: size(channels / self.groups)?,
                relu: u32::from(self.relu),
                eps: self.eps,
            },
        };
        lower.dispatch(kernel, self.groups);
        Ok(())
    }
}

/// Workgroups of a norm over `rows` rows.
fn groups(lanes: kernels::norm::Lanes, rows: usize) -> usize {
    match lanes {
        kernels::norm::Lanes::Lone => rows.div_ceil(8),
        kernels::norm::Lanes::Split => rows,
    }
}

/// Records an RMS norm of rows.
pub(crate) fn rms(lower: &mut Lower<'_>, x: Read, rows: usize, norm: (&Tensor, f32), y: Write) -> Result<()> {
    let lanes = variants::norm_lanes(lower.traits());
    let (weight, eps) = norm;
    let kernel = kernels::norm::Norm {
        form: kernels::norm::Form::Rms,
        lanes,
        x,
        plus: Lower::none(),
        weight: lower.vector(weight)?,
        bias: Lower::none(),
        y,
        params: kernels::norm::Params { rows: size(rows)?, cols: size(weight.len())?, flags: 0, act: 0, eps },
    };
    lower.dispatch(kernel, groups(lanes, rows));
    Ok(())
}
