//! Copies a value into a tensor that outlives the plan: taps, and what a stage hands on.

use crate::error::Result;
use crate::tensor::cpu::{CpuData, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::copy;
use crate::tensor::gpu::{Lower, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) from: Value,
    pub(crate) to: Value,
    /// The first number read.
    pub(crate) first: usize,
    /// Where it goes.
    pub(crate) at: usize,
    pub(crate) count: usize,
}

/// Copies all of `from` into `to`, which has as many numbers.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn copy_into(p: &mut Plan, from: Value, to: &Tensor) -> Result<()> {
    let count = p.shape(from).iter().product();
    super::want_size(to.len(), count, "the copy")?;
    let to = p.resident(to);
    p.push(Copy { from, to, first: 0, at: 0, count }, &[from], &[to]);
    Ok(())
}

/// Rows of several values under each other; a single value is handed on as it is.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn concat_rows(p: &mut Plan, parts: &[Value]) -> Result<Value> {
    let cols = p.cols(parts[0]);
    for v in parts {
        super::want_size(p.cols(*v), cols, "columns of a part")?;
    }
    if let [only] = parts {
        return Ok(*only);
    }
    let to = p.temp(&[parts.iter().map(|v| p.rows(*v)).sum(), cols]);
    let mut at = 0;
    for from in parts {
        let count = p.rows(*from) * cols;
        p.push(Copy { from: *from, to, first: 0, at, count }, &[*from], &[to]);
        at += count;
    }
    Ok(to)
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        self.count as u64 * units::MOVED
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let (from, to) = (self.first..self.first + self.count, self.at..self.at + self.count);
        match &mut *io.ids_mut(self.to)? {
            CpuData::U32(out) => out[to].copy_from_slice(&io.ids(self.from)?[from]),
            out => out.f32_mut()?[to].copy_from_slice(&io.f32(self.from)?[from]),
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = copy::Copy {
            x: lower.read(self.from)?,
            y: lower.write(self.to)?,
            params: copy::Params { count: size(self.count)?, first: size(self.first)?, at: size(self.at)? },
        };
        lower.each(kernel, self.count)
    }
}
