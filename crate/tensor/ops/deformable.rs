//! Multi-scale deformable attention in one piece: from offsets and logits to the sampled sum (before output_proj).

use super::{attention::softmax, want, want_size};
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

/// What the attention weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Logits: softmax over levels and points.
    Logits,
    /// Weights already.
    Given,
}

/// The shape of one deformable attention.
#[derive(Clone, Debug)]
pub struct Deformable {
    /// Heads.
    pub heads: usize,
    /// Points a head and level.
    pub points: usize,
    /// Height and width of every level.
    pub levels: Vec<(usize, usize)>,
    /// What the second half of the projection is.
    pub weights: Weights,
}

#[derive(Debug)]
pub(crate) struct DeformableOp {
    pub(crate) value: Value,
    pub(crate) projection: Value,
    pub(crate) reference: Value,
    pub(crate) y: Value,
    pub(crate) queries: usize,
    pub(crate) width: usize,
    /// 2 (a point) or 4 (a box).
    pub(crate) numbers: usize,
    pub(crate) shape: Deformable,
}

/// `value [Σ h·w, heads · width]`; `projection [queries, heads · levels · points · 3]`: all offsets
/// `[heads, levels, points, (x, y)]`, then all weights `[heads, levels, points]`; `reference [queries, 2 | 4]`
/// (normalised) → `[queries, heads · width]`. Two numbers: `loc = ref + offset / (w_l, h_l)`; four:
/// `loc = ref_xy + offset / points · ref_wh / 2`. Bilinear at `loc · size - 0.5`, outside is zero.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn deformable(p: &mut Plan, value: Value, projection: Value, reference: Value, shape: Deformable) -> Result<Value> {
    let queries = p.rows(projection);
    let samples = shape.heads * shape.levels.len() * shape.points;
    want(p, projection, &[queries, 3 * samples], "offsets and weights")?;
    want_size(p.rows(value), shape.levels.iter().map(|(h, w)| h * w).sum(), "pixels of all levels")?;
    want_size(p.rows(reference), queries, "references")?;
    let (inner, numbers) = (p.cols(value), p.cols(reference));
    want_size(inner % shape.heads, 0, "channels left over by heads")?;
    let y = p.temp(&[queries, inner]);
    let op = DeformableOp { value, projection, reference, y, queries, width: inner / shape.heads, numbers, shape };
    p.push(op, &[value, projection, reference], &[y]);
    Ok(y)
}

/// Queries of one unit of the twin.
const UNIT: usize = 512;

/// Where one sample lies, normalised: around a point by offsets in cells of its level, or around a box by offsets in
/// shares of its size.
pub(crate) fn location(reference: &[f32], offset: &[f32], level: (usize, usize), points: usize) -> (f32, f32) {
    if let [x, y] = *reference {
        return (x + offset[0] / level.1 as f32, y + offset[1] / level.0 as f32);
    }
    let points = points as f32;
    (reference[0] + offset[0] / points * reference[2] * 0.5, reference[1] + offset[1] / points * reference[3] * 0.5)
}

impl Op for DeformableOp {
    fn name(&self) -> &'static str {
        "deformable"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        // a place for every sample, then four corners of it
        let samples = self.queries * self.shape.heads * self.shape.levels.len() * self.shape.points;
        samples as u64 * 4 * units::MOVED + self.flops(plan)
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.queries.div_ceil(UNIT)
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let s = &self.shape;
        let (value, projection, reference) = (io.f32(self.value)?, io.f32(self.projection)?, io.f32(self.reference)?);
        let mut sums = io.f32_mut(self.y)?;
        let (hd, inner) = (self.width, s.heads * self.width);
        let per_head = s.levels.len() * s.points;
        let samples = s.heads * per_head;
        for q in unit * UNIT..((unit + 1) * UNIT).min(self.queries) {
            let row = &projection[q * 3 * samples..(q + 1) * 3 * samples];
            let r = &reference[q * self.numbers..(q + 1) * self.numbers];
            for m in 0..s.heads {
                let mut weights = row[2 * samples + m * per_head..2 * samples + (m + 1) * per_head].to_vec();
                if s.weights == Weights::Logits {
                    softmax(&mut weights, per_head);
                }
                let out = &mut sums[q * inner + m * hd..q * inner + (m + 1) * hd];
                out.fill(0.0);
                let mut start = 0;
                for (l, &level) in s.levels.iter().enumerate() {
                    for point in 0..s.points {
                        let k = l * s.points + point;
                        let at = 2 * (m * per_head + k);
                        let (x, y) = location(r, &row[at..at + 2], level, s.points);
                        let (px, py) = (x * level.1 as f32 - 0.5, y * level.0 as f32 - 0.5);
                        let (fx, fy) = (px.floor(), py.floor());
                        for (dy, dx) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
                            let (xi, yi) = (fx + dx, fy + dy);
                            if xi < 0.0 || yi < 0.0 || xi > (level.1 - 1) as f32 || yi > (level.0 - 1) as f32 {
                                continue;
                            }
                            let tap = (1.0 - (px - xi).abs()) * (1.0 - (py - yi).abs()) * weights[k];
                            let from = (start + yi as usize * level.1 + xi as usize) * inner + m * hd;
                            out.iter_mut().zip(&value[from..from + hd]).for_each(|(o, v)| *o += tap * v);
                        }
                    }
                    start += level.0 * level.1;
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let s = &self.shape;
        let mut sizes = [[0; 4]; 8];
        if s.levels.len() > sizes.len() {
            return Err(Error::internal("more than eight levels"));
        }
        let mut first = 0;
        for (to, (h, w)) in sizes.iter_mut().zip(&s.levels) {
            *to = [size(*h)?, size(*w)?, size(first)?, 0];
            first += h * w;
        }
        let quads = self.width.div_ceil(4);
        let kernel = kernels::deformable::Deformable {
            value: lower.read(self.value)?,
            projection: lower.read(self.projection)?,
            reference: lower.read(self.reference)?,
            y: lower.write(self.y)?,
            params: kernels::deformable::Params {
                queries: size(self.queries)?,
                heads: size(s.heads)?,
                width: size(self.width)?,
                quads: size(quads)?,
                points: size(s.points)?,
                levels: size(s.levels.len())?,
                numbers: size(self.numbers)?,
                logits: u32::from(s.weights == Weights::Logits),
                sizes,
            },
        };
        lower.each(kernel, self.queries * s.heads * quads)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        let samples = self.shape.heads * self.shape.levels.len() * self.shape.points;
        (self.queries * samples * self.width * 8) as u64
    }
}
