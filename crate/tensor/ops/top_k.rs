//! The k best of a column of scores, best first, equal scores by ascending index (golden/README.md O-20).

use super::want_size;
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

#[derive(Debug)]
pub(crate) struct TopK {
    pub(crate) x: Value,
    pub(crate) ids: Value,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// `x [n, 1]` → ids `[k]` (u32).
pub fn top_k(p: &mut Plan, x: Value, k: usize) -> Result<Value> {
    want_size(p.cols(x), 1, "columns of scores")?;
    let n = p.rows(x);
    if k > n {
        return Err(Error::internal(format!("the best {k} of {n} scores")));
    }
    let ids = p.temp_u32(&[k]);
    p.push(TopK { x, ids, n, k }, &[x], &[ids]);
    Ok(ids)
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let x = io.f32(self.x)?;
        let mut order: Vec<u32> = (0..u32::try_from(self.n).map_err(|_| Error::internal("too many scores"))?).collect();
        order.sort_by(|a, b| x[*b as usize].total_cmp(&x[*a as usize]));
        io.ids_mut(self.ids)?.u32_mut()?.copy_from_slice(&order[..self.k]);
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        lower.top_k(self)
    }
}
