//! Greedy choice on the device: the best id, written where the next step reads its token, and the position advanced.

use super::want_size;
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::device::Tensor;
use crate::tensor::gpu::{Lower, kernels, size};
use crate::tensor::plan::{Op, Plan, Value};
use crate::tensor::units;

#[derive(Debug)]
pub(crate) struct Argmax {
    /// The vocabulary's logits, then those of the added tokens.
    pub(crate) logits: Vec<Value>,
    pub(crate) state: Value,
    pub(crate) history: Value,
}

/// Places in the decoder's state (u32).
pub mod state {
    /// Position of the first row of the run.
    pub const POSITION: usize = 0;
    /// Rows of the run that count.
    pub const ROWS: usize = 1;
    /// The token chosen last: the code that the next step embeds.
    pub const TOKEN: usize = 2;
    /// Tokens chosen since the host last looked: where the next one goes in the history.
    pub const CHOSEN: usize = 3;
    /// Numbers of the state.
    pub const LEN: usize = 4;
}

/// The id of the greatest of all `logits [1, ·]` put one after the other (the lowest id on ties): stored in `state[TOKEN]` and in
/// `history[state[CHOSEN] % history]`; then `POSITION += ROWS`, `ROWS = 1`, `CHOSEN += 1`.
///
/// # Errors
/// `internal` where the shapes do not fit.
pub fn argmax(p: &mut Plan, logits: &[Value], state: &Tensor, history: &Tensor) -> Result<()> {
    want_size(state.len(), state::LEN, "the decoder's state")?;
    let (state, history) = (p.resident(state), p.resident(history));
    let reads: Vec<Value> = logits.iter().copied().chain([state]).collect();
    p.push(Argmax { logits: logits.to_vec(), state, history }, &reads, &[state, history]);
    Ok(())
}

/// The place of the greatest number, the first of equals; NaN is never the greatest.
#[must_use]
pub fn first_greatest(x: &[f32]) -> usize {
    let better = |best: (usize, f32), (i, v): (usize, &f32)| if *v > best.1 { (i, *v) } else { best };
    x.iter().enumerate().fold((0, f32::NEG_INFINITY), better).0
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn cost(&self, plan: &Plan) -> u64 {
        units::moved(plan, &self.logits)
    }

    fn cpu(&self, io: &CpuIo<'_>, _unit: usize) -> Result<()> {
        let mut all = Vec::new();
        for v in &self.logits {
            all.extend_from_slice(&io.f32(*v)?);
        }
        let best = u32::try_from(first_greatest(&all)).map_err(|_| Error::internal("too many logits"))?;
        let mut guard = io.ids_mut(self.state)?;
        let s = guard.u32_mut()?;
        let mut history = io.ids_mut(self.history)?;
        let history = history.u32_mut()?;
        history[s[state::CHOSEN] as usize % history.len()] = best;
        s[state::TOKEN] = best;
        s[state::POSITION] += s[state::ROWS];
        s[state::ROWS] = 1;
        s[state::CHOSEN] += 1;
        Ok(())
    }

    fn gpu(&self, lower: &mut Lower<'_>) -> Result<()> {
        let (a, b) = match self.logits.as_slice() {
            [a] => (*a, None),
            [a, b] => (*a, Some(*b)),
            _ => return Err(Error::internal("argmax takes one or two lists of logits")),
        };
        let kernel = kernels::argmax::Argmax {
            a: lower.read(a)?,
            b: lower.read_or_none(b)?,
            state: lower.write(self.state)?,
            history: lower.write(self.history)?,
            params: kernels::argmax::Params {
                vocabulary: size(lower.len(a))?,
                added: size(b.map_or(0, |b| lower.len(b)))?,
                history: size(lower.len(self.history))?,
            },
        };
        lower.dispatch(kernel, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::first_greatest;

    #[test]
    fn ties_go_to_the_lowest_place() {
        assert_eq!(first_greatest(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(first_greatest(&[f32::NAN, -1.0, -1.0]), 1);
        assert_eq!(first_greatest(&[f32::NEG_INFINITY; 3]), 0);
    }
}
