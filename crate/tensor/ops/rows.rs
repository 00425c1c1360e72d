//! Small movements of rows: sums, means, selections, masks, transpositions.

use super::{want, want_size};
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::device::Tensor;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

#[derive(Debug)]
pub(crate) struct Average {
    pub(crate) x: Vec<Value>,
    pub(crate) y: Value,
    pub(crate) factor: f32,
    /// Numbers skipped at the start of every input.
    pub(crate) skip: usize,
}

/// `a + b`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn add(p: &mut Plan, a: Value, b: Value) -> Result<Value> {
    want(p, b, p.shape(a), "the sum's second term")?;
    let y = p.temp_like(a);
    p.push(Average { x: vec![a, b], y, factor: 1.0, skip: 0 }, &[a, b], &[y]);
    Ok(y)
}

/// The mean of up to four values of one shape, their first `skip` rows left out (the class row).
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn average(p: &mut Plan, x: &[Value], skip: usize) -> Result<Value> {
    let (rows, cols) = (p.rows(x[0]), p.cols(x[0]));
    for v in x {
        want(p, *v, &[rows, cols], "a term of the mean")?;
    }
    let y = p.temp(&[rows - skip, cols]);
    p.push(Average { x: x.to_vec(), y, factor: 1.0 / x.len() as f32, skip: skip * cols }, x, &[y]);
    Ok(y)
}

impl Op for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        self.x.len() as u64 * units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let mut y = io.f32_mut(self.y)?;
        y.fill(0.0);
        for x in &self.x {
            let x = io.f32(*x)?;
            y.iter_mut().zip(&x[self.skip..]).for_each(|(y, x)| *y += x);
        }
        y.iter_mut().for_each(|v| *v *= self.factor);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let terms = self.x.len();
        if terms > 4 {
            return Err(Error::internal("a sum of more than four values"));
        }
        let x: Vec<_> = (0..4).map(|i| lower.read_or_none(self.x.get(i).copied())).collect::<Result<_>>()?;
        let [a, b, c, d]: [_; 4] = x.try_into().map_err(|_| Error::internal("four terms"))?;
        let n = lower.len(self.y);
        let params = kernels::average::Params {
            count: size(n)?,
            skip: size(self.skip)?,
            terms: size(terms)?,
            factor: self.factor,
        };
        let y = lower.write(self.y)?;
        lower.each(kernels::average::Average { a, b, c, d, y, params }, n)
    }
}

#[derive(Debug)]
pub(crate) struct GatherRows {
    pub(crate) x: Value,
    pub(crate) ids: Value,
    pub(crate) y: Value,
    pub(crate) cols: usize,
}

/// Rows `ids [n]` (u32) of `x [rows, cols]` → `[n, cols]`.
pub fn gather_rows(p: &mut Plan, x: Value, ids: Value) -> Value {
    let cols = p.cols(x);
    let y = p.temp(&[p.shape(ids)[0], cols]);
    p.push(GatherRows { x, ids, y, cols }, &[x, ids], &[y]);
    y
}

impl Op for GatherRows {
    fn name(&self) -> &'static str {
        "gather_rows"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (x, ids, c) = (io.f32(self.x)?, io.ids(self.ids)?, self.cols);
        let mut y = io.f32_mut(self.y)?;
        for (y, id) in y.chunks_exact_mut(c).zip(ids) {
            y.copy_from_slice(&x[id as usize * c..(id as usize + 1) * c]);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let rows = lower.len(self.ids);
        let kernel = kernels::gather_rows::GatherRows {
            x: lower.read(self.x)?,
            ids: lower.read(self.ids)?,
            y: lower.write(self.y)?,
            params: kernels::gather_rows::Params { rows: size(rows)?, cols: size(self.cols)? },
        };
        lower.each(kernel, rows * self.cols)
    }
}

#[derive(Debug)]
pub(crate) struct LastRow {
    pub(crate) x: Value,
    pub(crate) y: Value,
    /// u32; number 1 tells how many rows of `x` count.
    pub(crate) state: Value,
    pub(crate) cols: usize,
}

/// Row `state[1] - 1` of `x [rows, cols]` → `[1, cols]`: the last real row of a padded chunk.
pub fn last_row(p: &mut Plan, x: Value, state: &Tensor) -> Value {
    let cols = p.cols(x);
    let state = p.resident(state);
    let y = p.temp(&[1, cols]);
    p.push(LastRow { x, y, state, cols }, &[x, state], &[y]);
    y
}

impl Op for LastRow {
    fn name(&self) -> &'static str {
        "last_row"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let row = io.ids(self.state)?[1] as usize - 1;
        io.f32_mut(self.y)?.copy_from_slice(&io.f32(self.x)?[row * self.cols..(row + 1) * self.cols]);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::last_row::LastRow {
            x: lower.read(self.x)?,
            state: lower.read(self.state)?,
            y: lower.write(self.y)?,
            params: kernels::last_row::Params { cols: size(self.cols)? },
        };
        lower.each(kernel, self.cols)
    }
}

#[derive(Debug)]
pub(crate) struct MaskRows {
    pub(crate) x: Value,
    pub(crate) mask: Value,
    pub(crate) y: Value,
    pub(crate) cols: usize,
}

/// Rows whose `mask [rows]` is 0 become 0; where it is 1 they stay.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn mask_rows(p: &mut Plan, x: Value, mask: Value) -> Result<Value> {
    want(p, mask, &[p.rows(x)], "the mask")?;
    let (cols, y) = (p.cols(x), p.temp_like(x));
    p.push(MaskRows { x, mask, y, cols }, &[x, mask], &[y]);
    Ok(y)
}

impl Op for MaskRows {
    fn name(&self) -> &'static str {
        "mask_rows"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (x, mask, c) = (io.f32(self.x)?, io.f32(self.mask)?, self.cols);
        let mut y = io.f32_mut(self.y)?;
        for ((y, x), m) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(mask.iter()) {
            if *m == 0.0 { y.fill(0.0) } else { y.copy_from_slice(x) }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let rows = lower.rows(self.x);
        let kernel = kernels::mask_rows::MaskRows {
            x: lower.read(self.x)?,
            mask: lower.read(self.mask)?,
            y: lower.write(self.y)?,
            params: kernels::mask_rows::Params { rows: size(rows)?, cols: size(self.cols)? },
        };
        lower.each(kernel, rows * self.cols)
    }
}

#[derive(Debug)]
pub(crate) struct RowsToColumns {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// `x [batch · rows, cols]` → `[batch, cols · rows]`, every matrix transposed (maps flattened channel-major).
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn rows_to_columns(p: &mut Plan, x: Value, batch: usize) -> Result<Value> {
    want_size(p.rows(x) % batch, 0, "rows left over by the batch")?;
    let (rows, cols) = (p.rows(x) / batch, p.cols(x));
    let y = p.temp(&[batch, cols * rows]);
    p.push(RowsToColumns { x, y, batch, rows, cols }, &[x], &[y]);
    Ok(y)
}

impl Op for RowsToColumns {
    fn name(&self) -> &'static str {
        "rows_to_columns"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        let n = self.rows * self.cols;
        for b in 0..self.batch {
            for r in 0..self.rows {
                for c in 0..self.cols {
                    y[b * n + c * self.rows + r] = x[b * n + r * self.cols + c];
                }
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::rows_to_columns::RowsToColumns {
            x: lower.read(self.x)?,
            y: lower.write(self.y)?,
            params: kernels::rows_to_columns::Params {
                batch: size(self.batch)?,
                rows: size(self.rows)?,
                cols: size(self.cols)?,
            },
        };
        lower.each(kernel, self.batch * self.rows * self.cols)
    }
}

#[derive(Debug)]
pub(crate) struct ClassRow {
    pub(crate) x: Value,
    pub(crate) table: Value,
    pub(crate) y: Value,
}

/// `x [n, c]` below one empty row, plus `table [1 + n, c]`: patches get their positions, the class token (already added
/// into the table's first row) comes first.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn with_class_row(p: &mut Plan, x: Value, table: Value) -> Result<Value> {
    want(p, table, &[p.rows(x) + 1, p.cols(x)], "the position table")?;
    let y = p.temp_like(table);
    p.push(ClassRow { x, table, y }, &[x, table], &[y]);
    Ok(y)
}

impl Op for ClassRow {
    fn name(&self) -> &'static str {
        "class_row"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        y.copy_from_slice(&io.f32(self.table)?);
        let c = y.len() - x.len();
        y[c..].iter_mut().zip(x.iter()).for_each(|(y, x)| *y += x);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.y);
        let kernel = kernels::class_row::ClassRow {
            x: lower.read(self.x)?,
            table: lower.read(self.table)?,
            y: lower.write(self.y)?,
            params: kernels::class_row::Params { count: size(n)?, cols: size(n - lower.len(self.x))? },
        };
        lower.each(kernel, n)
    }
}

#[derive(Debug)]
pub(crate) struct FirstColumns {
    pub(crate) x: Value,
    pub(crate) y: Value,
    pub(crate) rows: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The first `count` columns of `x [rows, cols]`.
pub fn first_columns(p: &mut Plan, x: Value, count: usize) -> Value {
    let (rows, from) = (p.rows(x), p.cols(x));
    let y = p.temp(&[rows, count]);
    p.push(FirstColumns { x, y, rows, from, to: count }, &[x], &[y]);
    y
}

impl Op for FirstColumns {
    fn name(&self) -> &'static str {
        "first_columns"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &[self.y])
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let x = io.f32(self.x)?;
        let mut y = io.f32_mut(self.y)?;
        for (y, x) in y.chunks_exact_mut(self.to).zip(x.chunks_exact(self.from)) {
            y.copy_from_slice(&x[..self.to]);
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::first_columns::FirstColumns {
            x: lower.read(self.x)?,
            y: lower.write(self.y)?,
            params: kernels::first_columns::Params {
                count: size(self.rows * self.to)?,
                stride: size(self.from)?,
                to: size(self.to)?,
            },
        };
        lower.each(kernel, self.rows * self.to)
    }
}
