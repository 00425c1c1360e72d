//! The decoder's way in: RMS norm, stacked q/k/v projection, rotation, and the new rows of the cache.

use super::attention::Cache;
use super::{norm, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

#[derive(Debug)]
pub(crate) struct Qkv {
    pub(crate) x: Value,
    pub(crate) q: Value,
    pub(crate) cache: [Value; 3],
    pub(crate) norm: Tensor,
    pub(crate) eps: f32,
    pub(crate) weight: Tensor,
    /// `[positions, width]`: for every pair j its cosine, then its sine.
    pub(crate) rope: Tensor,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) width: usize,
    pub(crate) rows: usize,
}

/// The weights of [`qkv`].
#[derive(Clone, Debug)]
pub struct Projection {
    /// RMS norm weight, `[hidden]`.
    pub norm: Tensor,
    /// Its epsilon.
    pub eps: f32,
    /// q, k and v rows stacked, `[(heads + 2·kv_heads) · width, hidden]`, rotation pairs neighbours (llama.cpp's order).
    pub weight: Tensor,
    /// `[positions, width]`: `cos, sin` of every pair's angle, computed by the host in f64.
    pub rope: Tensor,
}

/// `x [rows, hidden]` → rotated queries `[rows, heads · width]`; rotated keys and values go into the cache at positions
/// `state[0] ..`.
pub fn qkv(
    p: &mut Plan,
    x: Value,
    w: &Projection,
    cache: &Cache,
    heads: usize,
    kv_heads: usize,
    width: usize,
) -> Result<Value> {
    want_size(p.cols(x), w.weight.cols(), w.weight.label())?;
    want_size(w.weight.rows(), (heads + 2 * kv_heads) * width, w.weight.label())?;
    let rows = p.rows(x);
    let q = p.temp(&[rows, heads * width]);
    let c = [&cache.k, &cache.v, &cache.state].map(|t| p.resident(t));
    let op = Qkv {
        x,
        q,
        cache: c,
        norm: w.norm.clone(),
        eps: w.eps,
        weight: w.weight.clone(),
        rope: w.rope.clone(),
        heads,
        kv_heads,
        width,
        rows,
    };
    p.push(op, &[x, c[2]], &[q, c[0], c[1]]);
    Ok(q)
}

/// Rotates neighbouring pairs of one row of heads by the angles of one position.
pub(crate) fn rotate(row: &mut [f32], angles: &[f32]) {
    for head in row.chunks_exact_mut(angles.len()) {
        for (pair, cs) in head.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cs[0] - b * cs[1];
            pair[1] = b * cs[0] + a * cs[1];
        }
    }
}

/// The rotation table of `positions` positions: angle `pos · theta^(-2j/width)`, in f64.
#[must_use]
pub fn rope_table(positions: usize, width: usize, theta: f64) -> Vec<f32> {
    (0..positions)
        .flat_map(|pos| {
            (0..width / 2).flat_map(move |j| {
                let angle = pos as f64 / theta.powf(2.0 * j as f64 / width as f64);
                [angle.cos() as f32, angle.sin() as f32]
            })
        })
        .collect()
}

impl Op for Qkv {
    fn name(&self) -> &'static str {
        "qkv"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let first = io.ids(self.cache[2])?[0] as usize;
        let x = norm::rms_rows(&io.f32(self.x)?, &self.norm.numbers()?, self.eps);
        let all = self.weight.rows();
        let y = cpu::product(&x, self.rows, &self.weight, 0, all, io.numerics)?;
        let (nq, nk) = (self.heads * self.width, self.kv_heads * self.width);
        let rope = self.rope.numbers()?;
        let (mut q, mut k, mut v) = (io.f32_mut(self.q)?, io.f32_mut(self.cache[0])?, io.f32_mut(self.cache[1])?);
        for r in 0..self.rows {
            let pos = first + r;
            let angles = &rope[pos * self.width..(pos + 1) * self.width];
            let row = &y[r * all..(r + 1) * all];
            let to = &mut q[r * nq..(r + 1) * nq];
            to.copy_from_slice(&row[..nq]);
            rotate(to, angles);
            let to = &mut k[pos * nk..(pos + 1) * nk];
            to.copy_from_slice(&row[nq..nq + nk]);
            rotate(to, angles);
            v[pos * nk..(pos + 1) * nk].copy_from_slice(&row[nq + nk..]);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.qkv(self)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.bytes() as u64
    }
}
