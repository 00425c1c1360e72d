//! Convolutions on maps `[pixels, channels]`: direct (any kernel, stride, padding) and transposed 2x2 stride 2.

use super::linear::{Epilogue, decoded, flag, gemm_rows};
use super::{Act, want_size};
use crate::error::{Code, Error, Result};
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::{conv_transpose, windows};
use crate::tensor::gpu::{Lower, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, ROWS_FIRST, Tiles};

/// The geometry of a convolution over `batch` maps of `height · width` pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Maps, one after the other.
    pub batch: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
    /// Zeros around the map.
    pub padding: usize,
}

impl Geometry {
    /// Height and width of the result.
    #[must_use]
    pub fn out(&self) -> (usize, usize) {
        let side = |n: usize| (n + 2 * self.padding - self.kernel) / self.stride + 1;
        (side(self.height), side(self.width))
    }
}

#[derive(Debug)]
pub(crate) struct Conv2d {
    pub(crate) x: Vec<Value>,
    pub(crate) y: Value,
    /// `[out, in · k · k]`, one for each input: the results are summed.
    pub(crate) weight: Vec<Tensor>,
    pub(crate) bias: Vec<Tensor>,
    pub(crate) geometry: Geometry,
    pub(crate) channels: usize,
    pub(crate) act: Act,
    /// `x` is one map `[channels, height · width]` (pixels of a photo).
    pub(crate) channels_first: bool,
}

/// `x [batch · pixels, in]` → `[batch · pixels', out]`; `weight [out, in · k · k]` with channels outermost in a row.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn conv2d(p: &mut Plan, x: Value, weight: &Tensor, bias: Option<&Tensor>, geometry: Geometry) -> Result<Value> {
    let bias: Vec<&Tensor> = bias.into_iter().collect();
    conv2d_sum(p, &[x], &[weight], &bias, geometry, Act::None)
}

/// The same for `x [channels, height, width]` as a photo's pixels are kept.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn conv2d_pixels(p: &mut Plan, x: Value, weight: &Tensor, bias: &Tensor, geometry: Geometry) -> Result<Value> {
    let channels = p.shape(x)[0];
    want_size(weight.cols(), channels * geometry.kernel * geometry.kernel, weight.label())?;
    let (h, w) = geometry.out();
    let y = p.temp(&[h * w, weight.rows()]);
    let op = Conv2d {
        x: vec![x],
        y,
        weight: vec![weight.clone()],
        bias: vec![bias.clone()],
        geometry,
        channels,
        act: Act::None,
        channels_first: true,
    };
    p.push(op, &[x], &[y]);
    Ok(y)
}

/// `act(Σ conv(x_i, weight_i) + Σ bias_i)`: maps of one shape, each with its own weights.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn conv2d_sum(
    p: &mut Plan,
    x: &[Value],
    weight: &[&Tensor],
    bias: &[&Tensor],
    geometry: Geometry,
    act: Act,
) -> Result<Value> {
    let channels = p.cols(x[0]);
    let out = weight[0].rows();
    for (x, w) in x.iter().zip(weight) {
        want_size(p.rows(*x), geometry.batch * geometry.height * geometry.width, "pixels of a map")?;
        want_size(w.cols(), p.cols(*x) * geometry.kernel * geometry.kernel, w.label())?;
        want_size(w.rows(), out, w.label())?;
    }
    for b in bias {
        want_size(b.len(), out, b.label())?;
    }
    let (h, w) = geometry.out();
    let y = p.temp(&[geometry.batch * h * w, out]);
    let op = Conv2d {
        x: x.to_vec(),
        y,
        geometry,
        channels,
        act,
        channels_first: false,
        weight: weight.iter().map(|t| (*t).clone()).collect(),
        bias: bias.iter().map(|t| (*t).clone()).collect(),
    };
    p.push(op, x, &[y]);
    Ok(y)
}

impl Conv2d {
    fn pixels(&self) -> usize {
        let (h, w) = self.geometry.out();
        self.geometry.batch * h * w
    }

    /// What so many pixels and channels of the result cost: windows, then products.
    fn tile_cost(&self, pixels: usize, out: usize) -> u64 {
        let one = |w: &Tensor| (pixels * w.cols()) as u64 * units::MOVED + units::product(pixels, out, w.cols());
        self.weight.iter().map(one).sum()
    }

    fn tiles(&self) -> Tiles {
        Tiles::new(self.pixels(), self.weight[0].rows(), &ROWS_FIRST, |rows, cols| self.tile_cost(rows, cols))
    }

    /// The input windows of result pixels `first..first + count`, `[count, in · k · k]`.
    fn windows(&self, x: &[f32], first: usize, count: usize) -> Vec<f32> {
        let g = &self.geometry;
        let (oh, ow) = g.out();
        let (k, c, plane) = (g.kernel, self.channels, g.height * g.width);
        let mut out = vec![0.0; count * c * k * k];
        for (i, window) in out.chunks_exact_mut(c * k * k).enumerate() {
            let pixel = first + i;
            let (b, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            for ky in 0..k {
                for kx in 0..k {
                    let (y, x0) =
                        ((oy * g.stride + ky).wrapping_sub(g.padding), (ox * g.stride + kx).wrapping_sub(g.padding));
                    if y >= g.height || x0 >= g.width {
                        continue;
                    }
                    let at = b * plane + y * g.width + x0;
                    for ch in 0..c {
                        let from = if self.channels_first { ch * plane + at } else { at * c + ch };
                        window[(ch * k + ky) * k + kx] = x[from];
                    }
                }
            }
        }
        out
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.tile_cost(self.pixels(), self.weight[0].rows())
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.tiles().count()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (pixels, mine) = self.tiles().tile(unit);
        let (out, count) = (self.weight[0].rows(), mine.len());
        let mut sum = vec![0.0; pixels.len() * count];
        for (x, w) in self.x.iter().zip(&self.weight) {
            let windows = self.windows(&io.f32(*x)?, pixels.start, pixels.len());
            let product = cpu::product(&windows, pixels.len(), w, mine.start, count, io.numerics)?;
            sum.iter_mut().zip(product).for_each(|(s, v)| *s += v);
        }
        for b in &self.bias {
            let b = &b.numbers()?[mine.clone()];
            sum.chunks_exact_mut(count).for_each(|row| row.iter_mut().zip(b).for_each(|(s, b)| *s += b));
        }
        self.act.apply_to(&mut sum);
        let mut y = io.f32_mut(self.y)?;
        let rows = y[pixels.start * out..pixels.end * out].chunks_exact_mut(out);
        rows.zip(sum.chunks_exact(count)).for_each(|(y, s)| y[mine.clone()].copy_from_slice(s));
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        if self.bias.len() > self.x.len() {
            return Err(Error::internal("a convolution has more biases than inputs"));
        }
        let g = &self.geometry;
        let (height, width) = g.out();
        let plane = g.height * g.width;
        let point = g.kernel == 1 && g.stride == 1 && g.padding == 0 && !self.channels_first;
        let k = self.channels * g.kernel * g.kernel;
        let room = WINDOW_BYTES.min(usize::try_from(lower.traits().binding).unwrap_or(usize::MAX));
        let most = (room / (4 * k)).clamp(1, self.pixels());
        let scrap = if point { None } else { Some(lower.scratch(most * k)?) };
        let y = lower.write(self.y)?;
        for (i, (x, weight)) in self.x.iter().zip(&self.weight).enumerate() {
            let bias = self.bias.get(i);
            let epilogue = Epilogue {
                bias: lower.vector_or_none(bias)?,
                flags: flag(bias.is_some(), Epilogue::BIAS) | flag(i > 0, Epilogue::PRIOR),
                act: if i + 1 == self.x.len() { self.act } else { Act::None },
                ..Epilogue::none()
            };
            let x = lower.read(*x)?;
            let slices = decoded(lower, if point { self.pixels() } else { most }, weight)?;
            let Some(scrap) = scrap else {
                gemm_rows(lower, &x, (0, self.pixels()), weight, &slices, &epilogue, &y)?;
                continue;
            };
            for base in (0..self.pixels()).step_by(most) {
                let rows = most.min(self.pixels() - base);
                let params = windows::Params {
                    count: size(rows * k)?,
                    k: size(k)?,
                    base: size(base)?,
                    channelstep: size(if self.channels_first { plane } else { 1 })?,
                    pixelstep: size(if self.channels_first { 1 } else { self.channels })?,
                    height: size(g.height)?,
                    width: size(g.width)?,
                    outheight: size(height)?,
                    outwidth: size(width)?,
                    kernel: size(g.kernel)?,
                    stride: size(g.stride)?,
                    padding: size(g.padding)?,
                    plane: size(plane * self.channels)?,
                };
                lower.each(windows::Windows { x: x.clone(), y: scrap.write(), params }, rows * k)?;
                gemm_rows(lower, &scrap.read(), (base, rows), weight, &slices, &epilogue, &y)?;
            }
        }
        Ok(())
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        self.weight.iter().map(|w| 2 * (self.pixels() * w.len()) as u64).sum()
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.iter().map(|w| w.bytes() as u64).sum()
    }
}

#[derive(Debug)]
pub(crate) struct ConvTranspose {
    pub(crate) x: Value,
    pub(crate) y: Value,
    /// `[in, out · 2 · 2]`.
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) act: Act,
}

/// Transposed convolution 2x2, stride 2: `x [h · w, in]`, `weight [in, out · 2 · 2]` → `[2h · 2w, out]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn conv_transpose2x2(
    p: &mut Plan,
    x: Value,
    weight: &Tensor,
    bias: &Tensor,
    height: usize,
    width: usize,
    act: Act,
) -> Result<Value> {
    want_size(p.rows(x), height * width, "pixels of a map")?;
    want_size(weight.rows(), p.cols(x), weight.label())?;
    want_size(weight.cols(), 4 * bias.len(), weight.label())?;
    let y = p.temp(&[4 * height * width, bias.len()]);
    p.push(ConvTranspose { x, y, weight: weight.clone(), bias: bias.clone(), height, width, act }, &[x], &[y]);
    Ok(y)
}

impl ConvTranspose {
    /// What so many pixels of x cost for so many channels of the result: the whole weight is decoded for each tile.
    fn tile_cost(&self, pixels: usize, out: usize) -> u64 {
        units::product(pixels, 4 * out, self.weight.rows()) + self.weight.len() as u64 * units::DECODED
    }

    fn tiles(&self) -> Tiles {
        Tiles::new(self.height * self.width, self.bias.len(), &ROWS_FIRST, |rows, cols| self.tile_cost(rows, cols))
    }
}

impl Op for ConvTranspose {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.tile_cost(self.height * self.width, self.bias.len())
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.tiles().count()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let (inner, outer) = (self.weight.rows(), self.weight.cols());
        let (pixels, mine) = self.tiles().tile(unit);
        // four neighbouring columns are a channel's
        let wide = 4 * mine.len();
        let (x, w) = (io.f32(self.x)?, self.weight.decode_all()?);
        let mut all = vec![0.0; pixels.len() * wide];
        let x = cpu::Matrix::new(&x[pixels.start * inner..], pixels.len(), inner, inner);
        cpu::multiply(x, cpu::Matrix::new(&w[4 * mine.start..], inner, wide, outer), 1.0, &mut all, wide);
        let bias = self.bias.numbers()?;
        let out = bias.len();
        let mut y = io.f32_mut(self.y)?;
        for (pixel, sums) in pixels.zip(all.chunks_exact(wide)) {
            let (py, px) = (pixel / self.width, pixel % self.width);
            for (o, four) in mine.clone().zip(sums.chunks_exact(4)) {
                for (i, sum) in four.iter().enumerate() {
                    let at = (2 * py + i / 2) * 2 * self.width + 2 * px + i % 2;
                    y[at * out + o] = self.act.apply(sum + bias[o]);
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let pixels = self.height * self.width;
        let out = self.bias.len();
        let tiles = out.div_ceil(8);
        let mut slices = lower.weight(&self.weight)?;
        let (Some(w), true) = (slices.pop(), slices.is_empty()) else {
            return Err(Error::new(Code::OutOfMemory, "the weight must fit one binding").at(self.weight.label()));
        };
        let kernel = conv_transpose::ConvTranspose {
            format: Lower::format(&self.weight),
            w: w.read,
            x: lower.read(self.x)?,
            bias: lower.vector(&self.bias)?,
            y: lower.write(self.y)?,
            params: conv_transpose::Params {
                pixels: size(pixels)?,
                inner: size(self.weight.rows())?,
                out: size(out)?,
                width: size(self.width)?,
                scales: size(w.slice.scales)?,
                act: self.act as u32,
                tiles: size(tiles)?,
            },
        };
        lower.dispatch(kernel, pixels.div_ceil(8) * tiles);
        Ok(())
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.height * self.width * self.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.weight.bytes() as u64
    }
}

/// Bytes of windows that lie in memory at once.
const WINDOW_BYTES: usize = 8 << 20;
