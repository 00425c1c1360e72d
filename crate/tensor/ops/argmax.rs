//! Greedy choice on the device: the best id, written where the next step reads its token, and the position advanced.

use super::want_size;
use crate::error::{Error, Result};
use crate::tensor::cpu::CpuIo;
use crate::tensor::device::Tensor;
use crate::tensor::gpu::Lower;
use crate::tensor::plan::{Op, Plan, Value};

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
pub fn argmax(p: &mut Plan, logits: &[Value], state: &Tensor, history: &Tensor) -> Result<()> {
    want_size(state.len(), state::LEN, "the decoder's state")?;
    let (state, history) = (p.resident(state), p.resident(history));
    let reads: Vec<Value> = logits.iter().copied().chain([state]).collect();
    p.push(Argmax { logits: logits.to_vec(), state, history }, &reads, &[state, history]);
    Ok(())
}

/// The place of the greatest number, the first of equals.
#[must_use]
pub fn first_greatest(x: &[f32]) -> usize {
    x.iter().enumerate().fold(0, |best, (i, v)| if *v > x[best] { i } else { best })
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
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
        lower.argmax(self)
    }
}
