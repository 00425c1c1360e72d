//! Copies a value into a tensor that outlives the plan: taps, and what a stage hands on.

use crate::error::Result;
use crate::tensor::cpu::{CpuData, CpuIo};
use crate::tensor::device::Tensor;
use crate::tensor::gpu::kernels::copy;
use crate::tensor::gpu::{Lower, size};
use crate::tensor::plan::{Op, Plan, Value};

#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) from: Value,
    pub(crate) to: Value,
    pub(crate) first: usize,
}

/// Copies all of `from` into `to`, which has as many numbers.
pub fn copy_into(p: &mut Plan, from: Value, to: &Tensor) -> Result<()> {
    super::want_size(p.shape(from).iter().product(), to.len(), "the copy")?;
    copy_part(p, from, 0, to);
    Ok(())
}

/// Copies `to.len()` numbers of `from`, beginning at number `first`, into `to`.
pub fn copy_part(p: &mut Plan, from: Value, first: usize, to: &Tensor) {
    let to = p.resident(to);
    p.push(Copy { from, to, first }, &[from], &[to]);
}

impl Op for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        match &mut *io.ids_mut(self.to)? {
            CpuData::U32(out) => {
                let n = out.len();
                out.copy_from_slice(&io.ids(self.from)?[self.first..self.first + n]);
            }
            out => {
                let out = out.f32_mut()?;
                let n = out.len();
                out.copy_from_slice(&io.f32(self.from)?[self.first..self.first + n]);
            }
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let n = lower.len(self.to);
        let kernel = copy::Copy {
            x: lower.read(self.from)?,
            y: lower.write(self.to)?,
            params: copy::Params { count: size(n)?, first: size(self.first)? },
        };
        lower.each(kernel, n)
    }
}
