//! The decoder's way in: RMS norm, stacked q/k/v projection, rotation, and the new rows of the cache.

use super::attention::Cache;
use super::{linear, norm, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::{Lower, kernels, size, variants};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, HEADS_FIRST, Tiles};

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
///
/// # Errors
/// `internal` where the shapes do not fit.
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

impl Qkv {
    /// What so many rows and heads (of queries, keys and values) cost: the norm of the rows and a product.
    fn tile_cost(&self, rows: usize, heads: usize) -> u64 {
        let k = self.weight.cols();
        (rows * k) as u64 * 2 * units::MOVED + units::product(rows, heads * self.width, k)
    }

    fn tiles(&self) -> Tiles {
        let heads = self.heads + 2 * self.kv_heads;
        Tiles::new(self.rows, heads, &HEADS_FIRST, |rows, heads| self.tile_cost(rows, heads))
    }
}

impl Op for Qkv {
    fn name(&self) -> &'static str {
        "qkv"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.tile_cost(self.rows, self.heads + 2 * self.kv_heads)
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.tiles().count()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let past = io.ids(self.cache[2])?[0] as usize;
        let (n, w) = (self.weight.cols(), self.width);
        let (rows, mine) = self.tiles().tile(unit);
        let x = norm::rms_rows(&io.f32(self.x)?[rows.start * n..rows.end * n], &self.norm.numbers()?, self.eps);
        let count = mine.len() * w;
        let all = cpu::product(&x, rows.len(), &self.weight, mine.start * w, count, io.numerics)?;
        let rope = self.rope.numbers()?;
        let (mut q, mut k, mut v) = (io.f32_mut(self.q)?, io.f32_mut(self.cache[0])?, io.f32_mut(self.cache[1])?);
        for (r, row) in rows.zip(all.chunks_exact(count)) {
            let (pos, kv) = (past + r, self.kv_heads);
            let angles = &rope[pos * w..(pos + 1) * w];
            for (h, head) in mine.clone().zip(row.chunks_exact(w)) {
                // heads of queries, then of keys, then of values
                let (to, at, turned) = match h.checked_sub(self.heads) {
                    None => (&mut q, r * self.heads + h, true),
                    Some(h) if h < kv => (&mut k, pos * kv + h, true),
                    Some(h) => (&mut v, pos * kv + h - kv, false),
                };
                let to = &mut to[at * w..(at + 1) * w];
                to.copy_from_slice(head);
                if turned {
                    rotate(to, angles);
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let (x, q) = (lower.read(self.x)?, lower.write(self.q)?);
        let (keys, values) = (lower.write(self.cache[0])?, lower.write(self.cache[1])?);
        let (rope, state) = (lower.vector(&self.rope)?, lower.read(self.cache[2])?);
        let (nq, nk) = (self.heads * self.width, self.kv_heads * self.width);
        let mut slices = lower.weight(&self.weight)?;
        if let (1, 1, Some(w)) = (self.rows, slices.len(), slices.pop()) {
            let format = Lower::format(&self.weight);
            let lanes = variants::matvec_lanes(lower.traits(), format, self.weight.cols());
            let kernel = kernels::qkv::Qkv {
                format,
                lanes: if lanes == 1 { kernels::qkv::Lanes::Lone } else { kernels::qkv::Lanes::Split },
                w: w.read,
                x,
                norm: lower.vector(&self.norm)?,
                q,
                keys,
                values,
                rope,
                state,
                params: kernels::qkv::Params {
                    k: size(self.weight.cols())?,
                    scales: size(w.slice.scales)?,
                    lanes: size(lanes)?,
                    queries: size(nq)?,
                    keys: size(nk)?,
                    width: size(self.width)?,
                    eps: self.eps,
                },
            };
            lower.dispatch(kernel, ((nq + 2 * nk) / 2 * lanes).div_ceil(64));
            return Ok(());
        }
        let normed = lower.scratch(self.rows * self.weight.cols())?;
        let all = lower.scratch(self.rows * self.weight.rows())?;
        norm::rms(lower, x, self.rows, (&self.norm, self.eps), normed.write())?;
        linear::product(lower, &normed.read(), self.rows, &self.weight, &linear::Epilogue::none(), &all.write())?;
        let kernel = kernels::rotate::Rotate {
            x: all.read(),
            q,
            keys,
            values,
            rope,
            state,
            params: kernels::rotate::Params {
                rows: size(self.rows)?,
                queries: size(nq)?,
                keys: size(nk)?,
                width: size(self.width)?,
                capacity: size(lower.rows(self.cache[0]).min(self.rope.rows()))?,
            },
        };
        lower.each(kernel, self.rows * (nq / 2 + nk))
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.bytes() as u64
    }
}
