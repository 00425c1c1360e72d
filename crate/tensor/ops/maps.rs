//! Movements of maps `[pixels, channels]`: cells merged for the image tokens, bilinear resizing (corners aligned) with
//! coordinates appended, and the exchange between levels of the region encoder.

use super::want_size;
use crate::error::Result;
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, Cut};

#[derive(Debug)]
pub(crate) struct MergeCells {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) skip: usize,
    pub(crate) width: usize,
    pub(crate) cell: usize,
}

/// Cells of `cell · cell` patches side by side in the channels, column-major inside a cell (golden/README.md O-3).
/// `x [skip + height · width, c]` → `[height/cell · width/cell, c · cell²]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn merge_cells(p: &mut Plan, x: Value, skip: usize, height: usize, width: usize, cell: usize) -> Result<Value> {
    want_size(p.rows(x), skip + height * width, "rows of a map")?;
    want_size(height % cell + width % cell, 0, "patches left over by cells")?;
    let y = p.temp(&[height * width / (cell * cell), p.cols(x) * cell * cell]);
    p.push(MergeCells { x, y, skip, width, cell }, &[x], &[y]);
    Ok(y)
}

impl Op for MergeCells {
    fn name(&self) -> &'static str {
        "merge_cells"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (k, cells) = (self.cell, self.width / self.cell);
        let c = io.shape(self.x)[1];
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        for (i, row) in y.chunks_exact_mut(c * k * k).enumerate() {
            let (cy, cx) = (i / cells, i % cells);
            for (j, part) in row.chunks_exact_mut(c).enumerate() {
                // place j of a cell: column j / k, row j % k
                let at = self.skip + (cy * k + j % k) * self.width + cx * k + j / k;
                part.copy_from_slice(&x[at * c..(at + 1) * c]);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.y);
        let kernel = kernels::merge_cells::MergeCells {
            x: lower.read(self.x)?,
            y: lower.write(self.y)?,
            params: kernels::merge_cells::Params {
                count: size(n)?,
                channels: size(lower.cols(self.x))?,
                skip: size(self.skip)?,
                width: size(self.width)?,
                cell: size(self.cell)?,
            },
        };
        lower.each(kernel, n)
    }
}

/// The taps of one axis of a resize with corners aligned: lower index, upper index, weight of the upper one.
pub(crate) fn corner_tap(i: usize, from: usize, to: usize) -> (usize, usize, f32) {
    if from == to || to == 1 {
        let at = if from == to { i } else { 0 };
        return (at, at, 0.0);
    }
    // in f64: the tap must not slip by a rounding of the source place
    let place = i as f64 * ((from - 1) as f64 / (to - 1) as f64);
    let low = (place.floor() as usize).min(from - 1);
    ((low), (low + 1).min(from - 1), (place - low as f64) as f32)
}

/// One resized pixel, added into `out`: channels `first..first + out.len()` of `x [height · width, c]`.
fn resized(
    x: &[f32],
    c: usize,
    first: usize,
    width: usize,
    ty: (usize, usize, f32),
    tx: (usize, usize, f32),
    out: &mut [f32],
) {
    let at = |y: usize, x0: usize| &x[(y * width + x0) * c + first..][..out.len()];
    let (aa, ab, ba, bb) = (at(ty.0, tx.0), at(ty.0, tx.1), at(ty.1, tx.0), at(ty.1, tx.1));
    for i in 0..out.len() {
        let top = aa[i] * (1.0 - tx.2) + ab[i] * tx.2;
        let bottom = ba[i] * (1.0 - tx.2) + bb[i] * tx.2;
        out[i] = top * (1.0 - ty.2) + bottom * ty.2;
    }
}

#[derive(Debug)]
pub(crate) struct WithCoordinates {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) skip: usize,
    pub(crate) from: (usize, usize),
    pub(crate) to: (usize, usize),
    pub(crate) channels: usize,
    pub(crate) coordinates: bool,
}

/// `x [skip + h · w, c]` resized to `to` and two channels appended, x then y from -1 to 1 → `[to.0 · to.1, c + 2]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn with_coordinates(
    p: &mut Plan,
    x: Value,
    skip: usize,
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Value> {
    resize(p, x, skip, from, to, true)
}

pub(crate) fn resize(
    p: &mut Plan,
    x: Value,
    skip: usize,
    from: (usize, usize),
    to: (usize, usize),
    coordinates: bool,
) -> Result<Value> {
    want_size(p.rows(x), skip + from.0 * from.1, "rows of a map")?;
    let channels = p.cols(x);
    let y = p.temp(&[to.0 * to.1, channels + if coordinates { 2 } else { 0 }]);
    p.push(WithCoordinates { x, y, skip, from, to, channels, coordinates }, &[x], &[y]);
    Ok(y)
}

/// `linspace(-1, 1, n)[i]`.
pub(crate) fn spread(i: usize, n: usize) -> f32 {
    if n == 1 { -1.0 } else { (-1.0 + 2.0 * i as f64 / (n - 1) as f64) as f32 }
}

impl Op for WithCoordinates {
    fn name(&self) -> &'static str {
        "with_coordinates"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        2 * units::moved(plan, &[self.y])
    }

    fn units(&self, plan: &Plan) -> usize {
        Cut::by_cost(self.to.0 * self.to.1, self.cost(plan)).parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let c = self.channels;
        let x = io.f32(self.x)?;
        let x = &x[self.skip * c..];
        let mut y = io.f32_mut(self.y)?;
        let wide = y.len() / (self.to.0 * self.to.1);
        let pixels = io.part(self, self.to.0 * self.to.1, unit);
        let rows = y[pixels.start * wide..pixels.end * wide].chunks_exact_mut(wide);
        for (i, row) in pixels.zip(rows) {
            let (py, px) = (i / self.to.1, i % self.to.1);
            let (ty, tx) = (corner_tap(py, self.from.0, self.to.0), corner_tap(px, self.from.1, self.to.1));
            resized(x, c, 0, self.from.1, ty, tx, &mut row[..c]);
            if self.coordinates {
                row[c] = spread(px, self.to.1);
                row[c + 1] = spread(py, self.to.0);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.y);
        let mut taps = axis_taps(self.from.0, self.to.0)?;
        taps.extend(axis_taps(self.from.1, self.to.1)?);
        let kernel = kernels::with_coordinates::WithCoordinates {
            x: lower.read(self.x)?,
            taps: lower.table(taps),
            y: lower.write(self.y)?,
            params: kernels::with_coordinates::Params {
                count: size(n)?,
                channels: size(self.channels)?,
                wide: size(lower.cols(self.y))?,
                skip: size(self.skip)?,
                fromwidth: size(self.from.1)?,
                width: size(self.to.1)?,
                height: size(self.to.0)?,
            },
        };
        lower.each(kernel, n)
    }
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) own: Value,
    pub(crate) next: Value,
    pub(crate) previous: Value,
    pub(crate) y: Value,
    /// Height and width of own, next and previous.
    pub(crate) sizes: [(usize, usize); 3],
    pub(crate) channels: usize,
}

/// A level's own first channels, the last quarter of the next level and the third quarter of the previous one, both
/// resized to its size: with `q = c/4` and `keep = c - 2q`, `[own[..keep], next[keep + q..], previous[keep..keep + q]]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn exchange(p: &mut Plan, own: Value, next: Value, previous: Value, sizes: [(usize, usize); 3]) -> Result<Value> {
    let channels = p.cols(own);
    for (v, s) in [own, next, previous].into_iter().zip(sizes) {
        super::want(p, v, &[s.0 * s.1, channels], "a level")?;
    }
    let y = p.temp_like(own);
    p.push(Exchange { own, next, previous, y, sizes, channels }, &[own, next, previous], &[y]);
    Ok(y)
}

impl Op for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        2 * units::moved(plan, &[self.y])
    }

    fn units(&self, plan: &Plan) -> usize {
        Cut::by_cost(self.sizes[0].0 * self.sizes[0].1, self.cost(plan)).parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let c = self.channels;
        let q = c / 4;
        let keep = c - 2 * q;
        let [size, next_size, previous_size] = self.sizes;
        let (own, next, previous) = (io.f32(self.own)?, io.f32(self.next)?, io.f32(self.previous)?);
        let mut y = io.f32_mut(self.y)?;
        let pixels = io.part(self, self.sizes[0].0 * self.sizes[0].1, unit);
        let rows = y[pixels.start * c..pixels.end * c].chunks_exact_mut(c);
        for (i, row) in pixels.zip(rows) {
            let (py, px) = (i / size.1, i % size.1);
            let taps = |from: (usize, usize)| (corner_tap(py, from.0, size.0), corner_tap(px, from.1, size.1));
            row[..keep].copy_from_slice(&own[i * c..i * c + keep]);
            let (ty, tx) = taps(next_size);
            resized(&next, c, keep + q, next_size.1, ty, tx, &mut row[keep..keep + q]);
            let (ty, tx) = taps(previous_size);
            resized(&previous, c, keep, previous_size.1, ty, tx, &mut row[keep + q..]);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.y);
        let [size_own, next, previous] = self.sizes;
        let mut taps = Vec::new();
        for from in [next, previous] {
            taps.extend(axis_taps(from.0, size_own.0)?);
            taps.extend(axis_taps(from.1, size_own.1)?);
        }
        let quarter = self.channels / 4;
        let kernel = kernels::exchange::Exchange {
            own: lower.read(self.own)?,
            next: lower.read(self.next)?,
            previous: lower.read(self.previous)?,
            taps: lower.table(taps),
            y: lower.write(self.y)?,
            params: kernels::exchange::Params {
                count: size(n)?,
                channels: size(self.channels)?,
                keep: size(self.channels - 2 * quarter)?,
                quarter: size(quarter)?,
                width: size(size_own.1)?,
                height: size(size_own.0)?,
                nextwidth: size(next.1)?,
                previouswidth: size(previous.1)?,
            },
        };
        lower.each(kernel, n)
    }
}

/// The taps of one axis as kernels want them: lower, upper, bits of the upper one's weight, bits of the coordinate.
fn axis_taps(from: usize, to: usize) -> Result<Vec<u32>> {
    let mut table = Vec::with_capacity(4 * to);
    for i in 0..to {
        let (low, high, weight) = corner_tap(i, from, to);
        table.extend([size(low)?, size(high)?, weight.to_bits(), spread(i, to).to_bits()]);
    }
    Ok(table)
}
