//! Softmax attention, whole (encoder, proposer) and over a cache (decoder); no `[T, T]` matrix outlives a head.

use super::{act::exp, want_size};
use crate::error::{Code, Error, Result};
use crate::tensor::cpu::{self, CpuIo, Matrix};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::{self, decode_attention};
use crate::tensor::gpu::{Lower, size, variants};
use crate::tensor::plan::{CacheWork, Op, Plan, Value};
use crate::tensor::units::{self, Cut};

/// `heads · width` neighbouring columns of a value: one of q, k, v inside a stacked projection.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The value, `[rows, ·]`.
    pub value: Value,
    /// The first column.
    pub first: usize,
}

impl Columns {
    /// All columns of a value.
    #[must_use]
    pub fn all(value: Value) -> Self {
        Self { value, first: 0 }
    }
}

#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) q: Columns,
    pub(crate) k: Columns,
    pub(crate) v: Columns,
    pub(crate) y: Value,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    pub(crate) q_rows: usize,
    pub(crate) k_rows: usize,
    /// Columns of the values that q, k and v lie in.
    pub(crate) strides: [usize; 3],
}

/// `softmax(q·kᵀ / √width) · v` for every head, no mask → `[q rows, heads · width]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn attention(p: &mut Plan, q: Columns, k: Columns, v: Columns, heads: usize, width: usize) -> Result<Value> {
    for c in [q, k, v] {
        if c.first + heads * width > p.cols(c.value) {
            return Err(Error::internal("attention reads beyond its columns"));
        }
    }
    want_size(p.rows(v.value), p.rows(k.value), "attention's values")?;
    let (q_rows, k_rows) = (p.rows(q.value), p.rows(k.value));
    let strides = [q, k, v].map(|c| p.cols(c.value));
    let y = p.temp(&[q_rows, heads * width]);
    p.push(Attention { q, k, v, y, heads, width, q_rows, k_rows, strides }, &[q.value, k.value, v.value], &[y]);
    Ok(y)
}

/// Softmax in place over the first `n` numbers of a row; the rest becomes 0.
pub(crate) fn softmax(row: &mut [f32], n: usize) {
    let (row, rest) = row.split_at_mut(n);
    rest.fill(0.0);
    // in lanes, so that compilers make vector code of it
    let (chunks, tail) = row.as_chunks::<8>();
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let lanes = chunks.iter().fold([f32::MIN; 8], |m, c| std::array::from_fn(|i| larger(m[i], c[i])));
    let max = lanes.iter().chain(tail).copied().fold(f32::MIN, larger);
    row.iter_mut().for_each(|v| *v = exp(*v - max));
    let inv = (1.0 / cpu::sum(row, |v| v)) as f32;
    row.iter_mut().for_each(|v| *v *= inv);
}

/// One head: `q [a, width]`, `k` and `v` `[b, width]`, row i of q sees the first `see(i)` rows of k. Rows of the result
/// begin every `stride` numbers of `y`.
fn head(
    q: Matrix<'_>,
    k: Matrix<'_>,
    v: Matrix<'_>,
    see: impl Fn(usize) -> usize + Sync,
    y: &mut [f32],
    stride: usize,
) {
    let (rows, width, seen) = (q.rows(), q.cols(), k.rows());
    let mut shares = vec![0.0; rows * seen];
    cpu::multiply(q, k.transposed(), 1.0 / (width as f32).sqrt(), &mut shares, seen);
    cpu::in_parts(&mut shares, seen, 4 * seen, |top, shares| {
        shares.chunks_exact_mut(seen).enumerate().for_each(|(i, row)| softmax(row, see(top + i)));
    });
    cpu::multiply(Matrix::new(&shares, rows, seen, seen), v, 1.0, y, stride);
}

/// One query of one head over keys and values as the cache has them: its numbers are those from `first` on in rows of
/// `stride`.
fn one_query(q: &[f32], keys: &[f32], values: &[f32], (stride, first): (usize, usize), y: &mut [f32]) {
    let (scale, mine) = (1.0 / (q.len() as f32).sqrt(), first..first + q.len());
    let mut shares: Vec<f32> = keys.chunks_exact(stride).map(|k| cpu::dot(q, &k[mine.clone()]) * scale).collect();
    let count = shares.len();
    softmax(&mut shares, count);
    y.fill(0.0);
    for (share, v) in shares.iter().zip(values.chunks_exact(stride)) {
        y.iter_mut().zip(&v[mine.clone()]).for_each(|(y, v)| *y += share * v);
    }
}

/// What every query row of a head costs over so many keys: two products and a softmax.
fn row_cost(keys: usize, width: usize) -> u64 {
    keys as u64 * (4 * width as u64 + units::SOFT)
}

impl Attention {
    fn head_cost(&self) -> u64 {
        self.q_rows as u64 * row_cost(self.k_rows, self.width)
    }

    /// The rows of a head in units of the twin.
    fn cut(&self) -> Cut {
        Cut::by_cost(self.q_rows, self.head_cost())
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.heads as u64 * self.head_cost()
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.heads * self.cut().parts()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let cut = self.cut();
        let (h, rows) = (unit / cut.parts(), cut.part(unit % cut.parts()));
        let (first, rows) = (rows.start, rows.len());
        let (w, [qs, ks, vs]) = (self.width, self.strides);
        let (q, k, v) = (io.f32(self.q.value)?, io.f32(self.k.value)?, io.f32(self.v.value)?);
        let q = Matrix::new(&q[first * qs + self.q.first + h * w..], rows, w, qs);
        let k = Matrix::new(&k[self.k.first + h * w..], self.k_rows, w, ks);
        let v = Matrix::new(&v[self.v.first + h * w..], self.k_rows, w, vs);
        let stride = self.heads * w;
        head(q, k, v, |_| self.k_rows, &mut io.f32_mut(self.y)?[first * stride + h * w..], stride);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let [qstride, kstride, vstride] = self.strides.map(size);
        let (tile, height) = variants::attention_tile(lower.traits());
        let kernel = kernels::attention::Attention {
            width: head_width(self.width)?,
            tile,
            mask: kernels::attention::Mask::Whole,
            cells: cells(&[self.width, self.q.first, self.k.first, self.v.first], &self.strides),
            q: lower.read(self.q.value)?,
            k: lower.read(self.k.value)?,
            v: lower.read(self.v.value)?,
            y: lower.write(self.y)?,
            state: Lower::none(),
            params: kernels::attention::Params {
                qrows: size(self.q_rows)?,
                krows: size(self.k_rows)?,
                heads: size(self.heads)?,
                share: 1,
                width: size(self.width)?,
                qstride: qstride?,
                kstride: kstride?,
                vstride: vstride?,
                qfirst: size(self.q.first)?,
                kfirst: size(self.k.first)?,
                vfirst: size(self.v.first)?,
                scale: 1.0 / (self.width as f32).sqrt(),
            },
        };
        lower.dispatch(kernel, self.q_rows.div_ceil(height) * self.heads);
        Ok(())
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        4 * (self.heads * self.width * self.q_rows * self.k_rows) as u64
    }
}

/// Keys and values of one decoder layer, `[capacity, kv_heads · width]` each, and where the next row goes.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Keys, rotated.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// u32 state of the decoder; number 0 is the position of the first row of this run.
    pub state: Tensor,
}

#[derive(Debug)]
pub(crate) struct CachedAttention {
    pub(crate) q: Value,
    pub(crate) y: Value,
    pub(crate) cache: [Value; 3],
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) width: usize,
    pub(crate) rows: usize,
    pub(crate) capacity: usize,
}

/// Causal attention of `q [rows, heads · width]` over the cache: row i stands at position `state[0] + i` and sees all up
/// to itself. Query head i reads key head `i / (heads / kv_heads)`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn cached_attention(
    p: &mut Plan,
    q: Value,
    cache: &Cache,
    heads: usize,
    kv_heads: usize,
    width: usize,
) -> Result<Value> {
    want_size(p.cols(q), heads * width, "queries")?;
    want_size(cache.k.cols(), kv_heads * width, "the key cache")?;
    let rows = p.rows(q);
    let c = [&cache.k, &cache.v, &cache.state].map(|t| p.resident(t));
    let y = p.temp(&[rows, heads * width]);
    let op = CachedAttention { q, y, cache: c, heads, kv_heads, width, rows, capacity: cache.k.rows() };
    p.push(op, &[q, c[0], c[1], c[2]], &[y]);
    Ok(y)
}

impl CachedAttention {
    /// At most: nobody knows how full the cache will be.
    fn head_cost(&self) -> u64 {
        self.rows as u64 * row_cost(self.capacity, self.width)
    }

    /// The rows of a head in units of the twin.
    fn cut(&self) -> Cut {
        Cut::by_cost(self.rows, self.head_cost())
    }
}

impl Op for CachedAttention {
    fn name(&self) -> &'static str {
        "cached_attention"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.heads as u64 * self.head_cost()
    }

    fn units(&self, _plan: &Plan) -> usize {
        if self.rows == 1 { 1 } else { self.heads * self.cut().parts() }
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let past = io.ids(self.cache[2])?[0] as usize;
        let (w, group) = (self.width, self.heads / self.kv_heads);
        let stride = self.kv_heads * w;
        let q = io.f32(self.q)?;
        let (keys, values) = (io.f32(self.cache[0])?, io.f32(self.cache[1])?);
        let mut y = io.f32_mut(self.y)?;
        let total = (past + self.rows).min(self.capacity);
        if self.rows == 1 {
            let (q, keys, values): (&[f32], &[f32], &[f32]) = (&q, &keys[..total * stride], &values[..total * stride]);
            cpu::in_parts(&mut y, w, 2 * total * w, |top, y| {
                for (h, y) in (top..).zip(y.chunks_exact_mut(w)) {
                    one_query(&q[h * w..(h + 1) * w], keys, values, (stride, h / group * w), y);
                }
            });
            return Ok(());
        }
        let cut = self.cut();
        let (h, rows) = (unit / cut.parts(), cut.part(unit % cut.parts()));
        let (kv, wide) = (h / group * w, self.heads * w);
        let q = Matrix::new(&q[rows.start * wide + h * w..], rows.len(), w, wide);
        // nobody sees beyond the last of these rows
        let seen = (past + rows.end).min(total);
        let (k, v) = (Matrix::new(&keys[kv..], seen, w, stride), Matrix::new(&values[kv..], seen, w, stride));
        let see = |i: usize| (past + rows.start + i + 1).min(seen);
        head(q, k, v, see, &mut y[rows.start * wide + h * w..], wide);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let [k, v, state] = self.cache.map(|c| lower.read(c));
        let (q, y) = (lower.read(self.q)?, lower.write(self.y)?);
        let share = size(self.heads / self.kv_heads)?;
        let scale = 1.0 / (self.width as f32).sqrt();
        let stride = size(self.kv_heads * self.width)?;
        let width = head_width(self.width)?;
        if self.rows == 1 {
            let params = decode_attention::Params {
                heads: size(self.heads)?,
                share,
                width: size(self.width)?,
                stride,
                capacity: size(self.capacity)?,
                scale,
            };
            let kernel = decode_attention::DecodeAttention { q, k: k?, v: v?, y, state: state?, params };
            lower.dispatch(kernel, self.heads);
            return Ok(());
        }
        let (tile, height) = variants::attention_tile(lower.traits());
        let params = kernels::attention::Params {
            qrows: size(self.rows)?,
            krows: size(self.capacity)?,
            heads: size(self.heads)?,
            share,
            width: size(self.width)?,
            qstride: size(self.heads * self.width)?,
            kstride: stride,
            vstride: stride,
            qfirst: 0,
            kfirst: 0,
            vfirst: 0,
            scale,
        };
        let mask = kernels::attention::Mask::Causal;
        let cells = cells(&[self.width], &[]);
        let kernel =
            kernels::attention::Attention { width, tile, mask, cells, q, k: k?, v: v?, y, state: state?, params };
        lower.dispatch(kernel, self.rows.div_ceil(height) * self.heads);
        Ok(())
    }

    fn cache_work(&self, past: usize) -> CacheWork {
        // row i sees past + i + 1 positions
        let seen = self.rows * past + self.rows * (self.rows + 1) / 2;
        let position = 2 * 4 * self.kv_heads * self.width;
        CacheWork {
            flops: 4 * (self.heads * self.width * seen) as u64,
            ideal_bytes: (position * (past + self.rows)) as u64,
            // every query head reads its key head for itself; rows of a chunk are taken to share what they read
            bytes: (position * (past + self.rows) * (self.heads / self.kv_heads)) as u64,
        }
    }
}

/// Whether everything that a head's place depends on comes in fours.
fn cells(sizes: &[usize], strides: &[usize]) -> kernels::attention::Cells {
    let fours = sizes.iter().chain(strides).all(|n| n.is_multiple_of(4));
    if fours { kernels::attention::Cells::Fours } else { kernels::attention::Cells::Singles }
}

fn head_width(width: usize) -> Result<kernels::attention::Width> {
    variants::head_width(width).ok_or_else(|| {
        let e = Error::new(Code::PackInvalid, "heads so wide run on the processor only (device cpu)");
        e.expected("at most 128 numbers a head", width)
    })
}
