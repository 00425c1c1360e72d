//! What becomes of box numbers between the proposer's heads: first references, their sine terms, refinement, scores.

use super::{act::sigmoid, want, want_size};
use crate::error::Result;
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

/// `log(max(x, 1e-5) / max(1 - x, 1e-5))` after clamping to 0..1.
#[must_use]
pub fn inverse_sigmoid(x: f32) -> f32 {
    let x = x.clamp(0.0, 1.0);
    (x.max(1e-5) / (1.0 - x).max(1e-5)).ln()
}

#[derive(Debug)]
pub(crate) struct FirstReference {
    pub(crate) delta: Value,
    pub(crate) proposals: Value,
    pub(crate) ids: Value,
    pub(crate) y: Value,
    pub(crate) queries: usize,
}

/// `sigmoid(delta + logit(proposal))` for the chosen proposals; an invalid one is 1 in all four numbers (O-6), without
/// ever computing an infinity. `delta [k, 4]`; `proposals [n, 5]`: four logits and a validity (1 or 0); `ids [k]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn first_reference(p: &mut Plan, delta: Value, proposals: Value, ids: Value) -> Result<Value> {
    let queries = p.rows(delta);
    want(p, delta, &[queries, 4], "box offsets")?;
    want_size(p.cols(proposals), 5, "a proposal")?;
    want(p, ids, &[queries], "chosen proposals")?;
    let y = p.temp(&[queries, 4]);
    p.push(FirstReference { delta, proposals, ids, y, queries }, &[delta, proposals, ids], &[y]);
    Ok(y)
}

impl Op for FirstReference {
    fn name(&self) -> &'static str {
        "first_reference"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        4 * self.queries as u64 * units::FUNCTION
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (delta, proposals, ids) = (io.f32(self.delta)?, io.f32(self.proposals)?, io.ids(self.ids)?);
        let mut y = io.f32_mut(self.y)?;
        for (q, id) in ids.iter().enumerate() {
            let proposal = &proposals[*id as usize * 5..][..5];
            for i in 0..4 {
                y[q * 4 + i] = if proposal[4] == 0.0 { 1.0 } else { sigmoid(delta[q * 4 + i] + proposal[i]) };
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::first_reference::FirstReference {
            delta: lower.read(self.delta)?,
            proposals: lower.read(self.proposals)?,
            ids: lower.read(self.ids)?,
            y: lower.write(self.y)?,
            params: kernels::first_reference::Params { queries: size(self.queries)? },
        };
        lower.each(kernel, self.queries * 4)
    }
}

#[derive(Debug)]
pub(crate) struct SineReference {
    pub(crate) reference: Value,
    pub(crate) y: Value,
    pub(crate) queries: usize,
    pub(crate) terms: usize,
}

/// Sine terms of `ref · 2π`, `terms` numbers for each of cx, cy, w, h: even places sine, odd places cosine of the angle
/// over `10000^(2·⌊i/2⌋/terms)`. `[queries, 4]` → `[queries, 4 · terms]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn sine_reference(p: &mut Plan, reference: Value, terms: usize) -> Result<Value> {
    let queries = p.rows(reference);
    want(p, reference, &[queries, 4], "references")?;
    let y = p.temp(&[queries, 4 * terms]);
    p.push(SineReference { reference, y, queries, terms }, &[reference], &[y]);
    Ok(y)
}

/// The divisors of the sine terms: `10000^(2·⌊i/2⌋/terms)`.
#[must_use]
pub fn sine_divisors(terms: usize) -> Vec<f64> {
    (0..terms).map(|i| 10000f64.powf((2 * (i / 2)) as f64 / terms as f64)).collect()
}

impl Op for SineReference {
    fn name(&self) -> &'static str {
        "sine_reference"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        (4 * self.queries * self.terms) as u64 * units::FUNCTION
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let reference = io.f32(self.reference)?;
        let mut y = io.f32_mut(self.y)?;
        let divisors = sine_divisors(self.terms);
        for (out, v) in y.chunks_exact_mut(self.terms).zip(reference.iter()) {
            for (i, (o, divisor)) in out.iter_mut().zip(&divisors).enumerate() {
                let angle = f64::from(*v) * std::f64::consts::TAU / divisor;
                *o = (if i % 2 == 0 { angle.sin() } else { angle.cos() }) as f32;
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let rates = sine_divisors(self.terms).iter().map(|d| ((std::f64::consts::TAU / d) as f32).to_bits()).collect();
        let kernel = kernels::sine_reference::SineReference {
            reference: lower.read(self.reference)?,
            rates: lower.table(rates),
            y: lower.write(self.y)?,
            params: kernels::sine_reference::Params { queries: size(self.queries)?, terms: size(self.terms)? },
        };
        lower.each(kernel, self.queries * 4 * self.terms)
    }
}

#[derive(Debug)]
pub(crate) struct Refine {
    pub(crate) delta: Value,
    pub(crate) base: Value,
    pub(crate) y: Value,
    pub(crate) queries: usize,
    pub(crate) numbers: usize,
}

/// `sigmoid(delta + inverse_sigmoid(base))`; a base of two numbers shifts only the centre. `[queries, 4]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn refine(p: &mut Plan, delta: Value, base: Value) -> Result<Value> {
    let (queries, numbers) = (p.rows(delta), p.cols(base));
    want(p, delta, &[queries, 4], "box offsets")?;
    want_size(p.rows(base), queries, "references")?;
    let y = p.temp(&[queries, 4]);
    p.push(Refine { delta, base, y, queries, numbers }, &[delta, base], &[y]);
    Ok(y)
}

impl Op for Refine {
    fn name(&self) -> &'static str {
        "refine"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        4 * self.queries as u64 * 2 * units::FUNCTION
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (delta, base) = (io.f32(self.delta)?, io.f32(self.base)?);
        let mut y = io.f32_mut(self.y)?;
        for q in 0..self.queries {
            for i in 0..4 {
                let add = if i < self.numbers { inverse_sigmoid(base[q * self.numbers + i]) } else { 0.0 };
                y[q * 4 + i] = sigmoid(delta[q * 4 + i] + add);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::refine::Refine {
            delta: lower.read(self.delta)?,
            base: lower.read(self.base)?,
            y: lower.write(self.y)?,
            params: kernels::refine::Params { queries: size(self.queries)?, numbers: size(self.numbers)? },
        };
        lower.each(kernel, self.queries * 4)
    }
}

#[derive(Debug)]
pub(crate) struct ScoreFusion {
    pub(crate) coco: Value,
    pub(crate) sa1b: Value,
    pub(crate) y: Value,
    pub(crate) queries: usize,
}

/// `sigmoid(coco)^0.4 · sigmoid(sa1b)^0.6`, all `[queries, 1]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn score_fusion(p: &mut Plan, coco: Value, sa1b: Value) -> Result<Value> {
    let queries = p.rows(coco);
    want(p, coco, &[queries, 1], "coco logits")?;
    want(p, sa1b, &[queries, 1], "sa1b logits")?;
    let y = p.temp(&[queries, 1]);
    p.push(ScoreFusion { coco, sa1b, y, queries }, &[coco, sa1b], &[y]);
    Ok(y)
}

impl Op for ScoreFusion {
    fn name(&self) -> &'static str {
        "score_fusion"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.queries as u64 * 4 * units::FUNCTION
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (coco, sa1b) = (io.f32(self.coco)?, io.f32(self.sa1b)?);
        let mut y = io.f32_mut(self.y)?;
        for (y, (c, s)) in y.iter_mut().zip(coco.iter().zip(sa1b.iter())) {
            *y = sigmoid(*c).powf(0.4) * sigmoid(*s).powf(0.6);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::score_fusion::ScoreFusion {
            coco: lower.read(self.coco)?,
            sa1b: lower.read(self.sa1b)?,
            y: lower.write(self.y)?,
            params: kernels::score_fusion::Params { queries: size(self.queries)? },
        };
        lower.each(kernel, self.queries)
    }
}
