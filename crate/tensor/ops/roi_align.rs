//! RoIAlign as the original's GPU kernel has it: aligned, 2x2 samples a bin, boxes of zero or negative extent legal.

use super::want_size;
use crate::error::Result;
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};

/// Samples a bin and axis.
pub const SAMPLES: usize = 2;

#[derive(Debug)]
pub(crate) struct RoiAlign {
    pub(crate) x: Value,
    pub(crate) rois: Value,
    pub(crate) y: Value,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) scale: f32,
    pub(crate) size: usize,
    pub(crate) regions: usize,
}

/// `x [height · width, c]`, `rois [r, 4]` (x1, y1, x2, y2 in pixels of the canvas), `scale` map pixels a canvas pixel
/// → `[r · size · size, c]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn roi_align(p: &mut Plan, x: Value, rois: Value, map: (usize, usize), scale: f32, size: usize) -> Result<Value> {
    want_size(p.rows(x), map.0 * map.1, "pixels of a map")?;
    want_size(p.cols(rois), 4, "a region")?;
    let (channels, regions) = (p.cols(x), p.rows(rois));
    let y = p.temp(&[regions * size * size, channels]);
    p.push(RoiAlign { x, rois, y, height: map.0, width: map.1, channels, scale, size, regions }, &[x, rois], &[y]);
    Ok(y)
}

/// Taps of one coordinate: lower, upper, weight of the upper; `None` where it lies outside.
fn taps(place: f32, n: usize) -> Option<(usize, usize, f32)> {
    if !(-1.0..=n as f32).contains(&place) {
        return None;
    }
    let place = place.max(0.0);
    let low = (place as usize).min(n - 1);
    Some(if low == n - 1 { (low, low, 0.0) } else { (low, low + 1, place - low as f32) })
}

impl Op for RoiAlign {
    fn name(&self) -> &'static str {
        "roi_align"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        // four samples of four taps
        16 * 2 * (self.regions * self.size * self.size * self.channels) as u64
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.regions
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (x, rois) = (io.f32(self.x)?, io.f32(self.rois)?);
        let mut y = io.f32_mut(self.y)?;
        let (c, size) = (self.channels, self.size);
        let edge: Vec<f32> = rois[unit * 4..unit * 4 + 4].iter().map(|v| v * self.scale - 0.5).collect();
        let bin = ((edge[2] - edge[0]) / size as f32, (edge[3] - edge[1]) / size as f32);
        let place = |start: f32, bin: f32, i: usize| {
            start + (i / SAMPLES) as f32 * bin + ((i % SAMPLES) as f32 + 0.5) * bin / SAMPLES as f32
        };
        let share = 1.0 / (SAMPLES * SAMPLES) as f32;
        for cell in 0..size * size {
            let out = &mut y[(unit * size * size + cell) * c..][..c];
            out.fill(0.0);
            for s in 0..SAMPLES * SAMPLES {
                let (iy, ix) = (cell / size * SAMPLES + s / SAMPLES, cell % size * SAMPLES + s % SAMPLES);
                let (Some(ty), Some(tx)) =
                    (taps(place(edge[1], bin.1, iy), self.height), taps(place(edge[0], bin.0, ix), self.width))
                else {
                    continue;
                };
                for (row, wy) in [(ty.0, 1.0 - ty.2), (ty.1, ty.2)] {
                    for (col, wx) in [(tx.0, 1.0 - tx.2), (tx.1, tx.2)] {
                        let from = &x[(row * self.width + col) * c..][..c];
                        let w = wy * wx * share;
                        out.iter_mut().zip(from).for_each(|(o, v)| *o += w * v);
                    }
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.y);
        let kernel = kernels::roi_align::RoiAlign {
            x: lower.read(self.x)?,
            rois: lower.read(self.rois)?,
            y: lower.write(self.y)?,
            params: kernels::roi_align::Params {
                count: size(n)?,
                channels: size(self.channels)?,
                height: size(self.height)?,
                width: size(self.width)?,
                size: size(self.size)?,
                scale: self.scale,
            },
        };
        lower.each(kernel, n)
    }
}
