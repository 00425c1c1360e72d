//! The decoder's input rows: token embeddings (old and added), image tokens and region tokens, chosen row by row.

use super::want_size;
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::device::Tensor;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

/// Where a row comes from, in the upper bits of its code.
pub const KIND_SHIFT: u32 = 28;
/// A row of the embedding table (ids beyond it: of the added tokens' table).
pub const KIND_TOKEN: u32 = 0;
/// An image token.
pub const KIND_IMAGE: u32 = 1;
/// A region token.
pub const KIND_REGION: u32 = 2;

/// The tables that [`embed`] reads.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `[vocabulary, hidden]`, any weight type.
    pub tokens: Tensor,
    /// `[added, hidden]`, any weight type.
    pub added: Option<Tensor>,
    /// `[·, hidden]` f32.
    pub image: Option<Tensor>,
    /// `[·, hidden]` f32.
    pub regions: Option<Tensor>,
}

#[derive(Debug)]
pub(crate) struct Embed {
    pub(crate) codes: Value,
    /// Image and region rows, where they are used.
    pub(crate) image: Option<Value>,
    pub(crate) regions: Option<Value>,
    pub(crate) y: Value,
    pub(crate) tables: Tables,
    pub(crate) rows: usize,
    /// The first code that is read (a decode step keeps its token inside the state).
    pub(crate) first: usize,
}

/// `rows` rows of `hidden` numbers; row i is what `codes[first + i]` (u32) names.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn embed(p: &mut Plan, codes: &Tensor, first: usize, rows: usize, tables: &Tables) -> Result<Value> {
    let hidden = tables.tokens.cols();
    if let Some(t) = &tables.added {
        want_size(t.cols(), hidden, t.label())?;
    }
    let codes = p.resident(codes);
    let image = tables.image.as_ref().map(|t| p.resident(t));
    let regions = tables.regions.as_ref().map(|t| p.resident(t));
    let reads: Vec<Value> = [Some(codes), image, regions].into_iter().flatten().collect();
    let y = p.temp(&[rows, hidden]);
    p.push(Embed { codes, image, regions, y, tables: tables.clone(), rows, first }, &reads, &[y]);
    Ok(y)
}

impl Op for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let codes = io.ids(self.codes)?;
        let h = self.tables.tokens.cols();
        let vocabulary = self.tables.tokens.rows();
        let mut y = io.f32_mut(self.y)?;
        for (row, code) in y.chunks_exact_mut(h).zip(&codes[self.first..]) {
            let at = (code & ((1 << KIND_SHIFT) - 1)) as usize;
            let missing = || Error::internal(format!("row code {code:#x} names no table"));
            match (code >> KIND_SHIFT, self.image, self.regions) {
                (KIND_TOKEN, ..) if at < vocabulary => self.tables.tokens.decode_rows(at, 1, row)?,
                (KIND_TOKEN, ..) => {
                    let added = self.tables.added.as_ref().ok_or_else(missing)?;
                    added.decode_rows(at - vocabulary, 1, row)?;
                }
                (KIND_IMAGE, Some(v), _) | (KIND_REGION, _, Some(v)) => {
                    row.copy_from_slice(&io.f32(v)?[at * h..(at + 1) * h])
                }
                _ => return Err(missing()),
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let vocabulary = self.tables.tokens.rows();
        table(lower, self, &self.tables.tokens, 0)?;
        if let Some(added) = &self.tables.added {
            table(lower, self, added, vocabulary)?;
        }
        if let Some(image) = &self.tables.image {
            table(lower, self, image, (KIND_IMAGE as usize) << KIND_SHIFT)?;
        }
        if let Some(regions) = &self.tables.regions {
            table(lower, self, regions, (KIND_REGION as usize) << KIND_SHIFT)?;
        }
        Ok(())
    }
}

/// Records the rows of one table, whose codes begin at `first`: a dispatch for each of its slices.
fn table(lower: &mut Lower<'_>, op: &Embed, t: &Tensor, first: usize) -> Result<()> {
    let k4 = t.cols().div_ceil(4);
    for w in lower.weight(t)? {
        let kernel = kernels::embed::Embed {
            format: Lower::format(t),
            w: w.read,
            codes: lower.read(op.codes)?,
            y: lower.write(op.y)?,
            params: kernels::embed::Params {
                rows: size(op.rows)?,
                k: size(t.cols())?,
                k4: size(k4)?,
                scales: size(w.slice.scales)?,
                start: size(op.first)?,
                first: size(first + w.slice.first)?,
                count: size(w.slice.rows)?,
            },
        };
        lower.each(kernel, op.rows * k4)?;
    }
    Ok(())
}
