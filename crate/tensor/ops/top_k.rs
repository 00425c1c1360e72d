//! The k best of a column of scores, best first, equal scores by ascending index (golden/README.md O-20): both zeros are
//! equal, NaN is the least.

use super::want_size;
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

#[derive(Debug)]
pub(crate) struct TopK {
    pub(crate) x: Value,
    pub(crate) ids: Value,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// `x [n, 1]` → ids `[k]` (u32).
///
/// # Errors
/// `internal` for more than one column, or a `k` beyond the scores.
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

/// Indices of the `k` largest of `scores`, largest first.
#[must_use]
pub fn best(scores: &[f32], k: usize) -> Vec<usize> {
    // adding zero makes one zero of both, which `total_cmp` would not
    let key = |i: &usize| if scores[*i].is_nan() { f32::NEG_INFINITY } else { scores[*i] + 0.0 };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
    order.truncate(k);
    order
}

impl Op for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn cost(&self, _plan: &Plan) -> u64 {
        // as many comparisons as sorting takes
        self.n as u64 * u64::from(self.n.max(2).ilog2()) * units::MOVED
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let ids = best(&io.f32(self.x)?, self.k);
        for (to, id) in io.ids_mut(self.ids)?.u32_mut()?.iter_mut().zip(ids) {
            *to = size(id)?;
        }
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let kernel = kernels::top_k::TopK {
            x: lower.read(self.x)?,
            ids: lower.write(self.ids)?,
            params: kernels::top_k::Params { count: size(self.n)?, best: size(self.k)? },
        };
        // every score is compared with every other
        lower.costs((self.n * self.n) as u64);
        lower.each(kernel, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn zeros_are_equal_and_nan_is_the_least() {
        assert_eq!(best(&[-0.0, 0.0, f32::NAN, -0.0, 1.0, -1.0], 6), [4, 0, 1, 3, 5, 2]);
        assert_eq!(best(&[f32::NAN, f32::NEG_INFINITY, -f32::NAN], 3), [0, 1, 2], "none of them is better");
    }
}
