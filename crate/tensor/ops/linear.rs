//! `y = residual + scale · act(x · Wᵀ + bias)`: every matrix product of the model with its epilogue.

use super::{Act, want_size};
use crate::error::Result;
use crate::tensor::cpu::{self, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::{Read, WeightFormat, Write, decode_weight, gemm, matvec};
use crate::tensor::gpu::layout::Slice;
use crate::tensor::gpu::{Lower, WeightSlice, size, variants};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units::{self, COLUMNS_FIRST, Tiles};

/// A linear layer `[out, in]` with what is folded into it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The matrix, `[out, in]`, in any weight type.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Applied after the bias.
    pub act: Act,
    /// Layer scale, `[out]`, multiplied after the activation.
    pub scale: Option<Tensor>,
    /// `[rows, out]`, added last.
    pub residual: Option<Value>,
}

impl Linear {
    /// A plain product with an optional bias.
    #[must_use]
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Self {
        Self { weight: weight.clone(), bias: bias.cloned(), act: Act::None, scale: None, residual: None }
    }

    /// With an activation.
    #[must_use]
    pub fn act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    /// With a layer scale.
    #[must_use]
    pub fn scale(mut self, scale: &Tensor) -> Self {
        self.scale = Some(scale.clone());
        self
    }

    /// With a residual.
    #[must_use]
    pub fn residual(mut self, residual: Value) -> Self {
        self.residual = Some(residual);
        self
    }
}

#[derive(Debug)]
pub(crate) struct LinearOp {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) rows: usize,
    pub(crate) layer: Linear,
}

/// `x [rows, in]` (leading axes are flattened) → `[rows, out]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn linear(p: &mut Plan, x: Value, layer: Linear) -> Result<Value> {
    let y = p.temp(&[p.rows(x), layer.weight.rows()]);
    record(p, x, layer, y)?;
    Ok(y)
}

/// The same into a tensor that outlives the plan, `[rows, out]`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn linear_into(p: &mut Plan, x: Value, layer: &Linear, y: &Tensor) -> Result<()> {
    let shape = [p.rows(x), layer.weight.rows()];
    let y = p.resident(y);
    super::want(p, y, &shape, "the place of the result")?;
    record(p, x, layer.clone(), y)
}

fn record(p: &mut Plan, x: Value, layer: Linear, y: Value) -> Result<()> {
    let (rows, out) = (p.rows(x), layer.weight.rows());
    want_size(p.cols(x), layer.weight.cols(), layer.weight.label())?;
    for v in [&layer.bias, &layer.scale].into_iter().flatten() {
        want_size(v.len(), out, v.label())?;
    }
    let mut reads = vec![x];
    if let Some(r) = layer.residual {
        super::want(p, r, &[rows, out], "the residual")?;
        reads.push(r);
    }
    p.push(LinearOp { x, y, rows, layer }, &reads, &[y]);
    Ok(())
}

impl LinearOp {
    fn tiles(&self) -> Tiles {
        let w = &self.layer.weight;
        Tiles::new(self.rows, w.rows(), &COLUMNS_FIRST, |rows, cols| units::product(rows, cols, w.cols()))
    }
}

impl Op for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        units::product(self.rows, self.layer.weight.rows(), self.layer.weight.cols())
    }

    fn units(&self, _plan: &Plan) -> usize {
        self.tiles().count()
    }

    fn cpu(&self, io: &CpuIo<'_>, unit: usize) -> Result<()> {
        let w = &self.layer.weight;
        let (out, k) = (w.rows(), w.cols());
        let (rows, mine) = self.tiles().tile(unit);
        let (first, count) = (mine.start, mine.len());
        let x = io.f32(self.x)?;
        let product = cpu::product(&x[rows.start * k..rows.end * k], rows.len(), w, first, count, io.numerics)?;
        let bias = self.layer.bias.as_ref().map(Tensor::numbers).transpose()?;
        let scale = self.layer.scale.as_ref().map(Tensor::numbers).transpose()?;
        let residual = self.layer.residual.map(|r| io.f32(r)).transpose()?;
        let (bias, scale) = (bias.as_ref().map(|b| &b[mine.clone()]), scale.as_ref().map(|s| &s[mine.clone()]));
        let (residual, act) = (residual.as_deref().map(|r| &r[rows.start * out..]), self.layer.act);
        cpu::in_parts(&mut io.f32_mut(self.y)?[rows.start * out..rows.end * out], out, 4 * count, |top, y| {
            for (row, y) in y.chunks_exact_mut(out).enumerate() {
                let row = top + row;
                let y = &mut y[mine.clone()];
                y.copy_from_slice(&product[row * count..(row + 1) * count]);
                if let Some(bias) = bias {
                    y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                }
                act.apply_to(y);
                if let Some(scale) = scale {
                    y.iter_mut().zip(scale).for_each(|(y, s)| *y *= s);
                }
                if let Some(residual) = residual {
                    y.iter_mut().zip(&residual[row * out + first..]).for_each(|(y, r)| *y += r);
                }
            }
        });
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let l = &self.layer;
        let epilogue = Epilogue {
            bias: lower.vector_or_none(l.bias.as_ref())?,
            scale: lower.vector_or_none(l.scale.as_ref())?,
            residual: lower.read_or_none(l.residual)?,
            flags: flag(l.bias.is_some(), Epilogue::BIAS)
                | flag(l.scale.is_some(), Epilogue::SCALE)
                | flag(l.residual.is_some(), Epilogue::RESIDUAL),
            act: l.act,
        };
        let (x, y) = (lower.read(self.x)?, lower.write(self.y)?);
        product(lower, &x, self.rows, &l.weight, &epilogue, &y)
    }

    fn flops(&self, _plan: &Plan) -> u64 {
        2 * (self.rows * self.layer.weight.len()) as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.layer.weight.bytes() as u64
    }
}

/// What a matrix product's kernel does with its sums.
#[derive(Clone, Debug)]
pub(crate) struct Epilogue {
    pub(crate) bias: Read,
    pub(crate) scale: Read,
    pub(crate) residual: Read,
    pub(crate) flags: u32,
    pub(crate) act: Act,
}

impl Epilogue {
    pub(crate) const BIAS: u32 = 1;
    pub(crate) const SCALE: u32 = 2;
    pub(crate) const RESIDUAL: u32 = 4;
    /// The result holds a part of the sum already.
    pub(crate) const PRIOR: u32 = 8;

    /// Nothing but the sums.
    pub(crate) fn none() -> Self {
        Self { bias: Lower::none(), scale: Lower::none(), residual: Lower::none(), flags: 0, act: Act::None }
    }
}

pub(crate) fn flag(is: bool, bit: u32) -> u32 {
    if is { bit } else { 0 }
}

/// `y = x [rows, in] · weightᵀ` with its epilogue: a dispatch for each slice of the weight.
pub(crate) fn product(
    lower: &mut Lower<'_>,
    x: &Read,
    rows: usize,
    weight: &Tensor,
    epilogue: &Epilogue,
    y: &Write,
) -> Result<()> {
    if rows != 1 {
        let slices = decoded(lower, rows, weight)?;
        return gemm_rows(lower, x, (0, rows), weight, &slices, epilogue, y);
    }
    let format = Lower::format(weight);
    let lanes = variants::matvec_lanes(lower.traits(), format, weight.cols());
    for w in lower.weight(weight)? {
        let kernel = matvec::Matvec {
            format,
            lanes: if lanes == 1 { matvec::Lanes::Lone } else { matvec::Lanes::Split },
            w: w.read,
            x: x.clone(),
            bias: epilogue.bias.clone(),
            scale: epilogue.scale.clone(),
            residual: epilogue.residual.clone(),
            y: y.clone(),
            params: matvec::Params {
                k: size(weight.cols())?,
                scales: size(w.slice.scales)?,
                lanes: size(lanes)?,
                count: size(w.slice.rows)?,
                first: size(w.slice.first)?,
                act: epilogue.act as u32,
                flags: epilogue.flags,
            },
        };
        lower.dispatch(kernel, (w.slice.rows.div_ceil(2) * lanes).div_ceil(64));
    }
    Ok(())
}

/// The same for `rows` rows of which the first becomes row `base` of y, with the weight's slices as [`decoded`] gives them.
pub(crate) fn gemm_rows(
    lower: &mut Lower<'_>,
    x: &Read,
    (base, rows): (usize, usize),
    weight: &Tensor,
    slices: &[Decoded],
    epilogue: &Epilogue,
    y: &Write,
) -> Result<()> {
    for w in slices {
        let (tile, height, width) = variants::gemm_tile(lower.traits(), rows, w.slice.rows);
        let tiles = w.slice.rows.div_ceil(width);
        let kernel = gemm::Gemm {
            format: w.format,
            tile,
            w: w.read.clone(),
            x: x.clone(),
            bias: epilogue.bias.clone(),
            scale: epilogue.scale.clone(),
            residual: epilogue.residual.clone(),
            y: y.clone(),
            params: gemm::Params {
                rows: size(rows)?,
                base: size(base)?,
                cols: size(w.slice.rows)?,
                first: size(w.slice.first)?,
                out: size(weight.rows())?,
                k: size(weight.cols())?,
                k4: size(weight.cols().div_ceil(4))?,
                scales: size(w.slice.scales)?,
                tiles: size(tiles)?,
                act: epilogue.act as u32,
                flags: epilogue.flags,
            },
        };
        lower.dispatch(kernel, rows.div_ceil(height) * tiles);
    }
    Ok(())
}

/// A slice of a weight as products read it.
#[derive(Clone, Debug)]
pub(crate) struct Decoded {
    format: WeightFormat,
    read: Read,
    slice: Slice,
}

/// A weight's slices for products of about so many rows: decoded aside first, once for all products of this step, where
/// that is worth its dispatch.
pub(crate) fn decoded(lower: &mut Lower<'_>, rows: usize, weight: &Tensor) -> Result<Vec<Decoded>> {
    let format = Lower::format(weight);
    let mut out = Vec::new();
    for WeightSlice { read: w, slice } in lower.weight(weight)? {
        let len = slice.rows * weight.cols();
        if !variants::decodes_aside(lower.traits(), format, rows, len) {
            out.push(Decoded { format, read: w, slice });
            continue;
        }
        let scrap = lower.scratch(len)?;
        let params = decode_weight::Params { count: size(len / 4)?, scales: size(slice.scales)? };
        lower.each(decode_weight::DecodeWeight { format, w, y: scrap.write(), params }, len / 4)?;
        out.push(Decoded { format: WeightFormat::F32, read: scrap.read(), slice });
    }
    Ok(out)
}
