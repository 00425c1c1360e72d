//! Which buffers a plan's temporaries lie in, and the arena that all plans take them from.

use std::sync::{Arc, Weak};

use super::counters::Purpose;
use super::device::{Gpu, lock};
use super::lower::Recording;
use super::memory::Held;
use crate::error::Result;
use crate::tensor::plan::Plan;

/// Which buffer every temporary lies in. Values whose lives do not overlap share one.
#[derive(Debug)]
pub struct Slots {
    /// Bytes of every buffer.
    pub sizes: Vec<usize>,
    /// The buffer of every value that is a temporary and is used.
    pub values: Vec<Option<usize>>,
    /// The buffer of every scratch value.
    pub scratch: Vec<usize>,
}

/// A value or scratch value that needs a buffer, and the first and the last step that touch it.
struct Life {
    bytes: usize,
    first: usize,
    last: usize,
    of: Of,
}

enum Of {
    Value(usize),
    Scratch(usize),
}

impl Slots {
    /// Assigns buffers by liveness: values whose lives overlap in a step lie in different ones. Large values choose first
    /// and smaller ones lie where they fit, which wastes less than going from step to step does.
    #[must_use]
    pub fn assign(plan: &Plan, recording: &Recording) -> Self {
        let mut slots = Slots {
            sizes: Vec::new(),
            values: vec![None; plan.values().len()],
            scratch: vec![0; recording.scratch.len()],
        };
        let mut lives = Self::lives(plan, recording);
        lives.sort_by_key(|l| std::cmp::Reverse(l.bytes));
        let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
        for life in lives {
            let free =
                |t: &&Vec<(usize, usize)>| t.iter().all(|(first, last)| life.last < *first || *last < life.first);
            // Slots come in falling sizes, so the last one that is free fits best.
            let slot = taken.iter().rposition(|t| free(&t)).unwrap_or_else(|| {
                slots.sizes.push(life.bytes);
                taken.push(Vec::new());
                taken.len() - 1
            });
            taken[slot].push((life.first, life.last));
            match life.of {
                Of::Value(v) => slots.values[v] = Some(slot),
                Of::Scratch(i) => slots.scratch[i] = slot,
            }
        }
        slots
    }

    fn lives(plan: &Plan, recording: &Recording) -> Vec<Life> {
        let padded = |bytes: usize| bytes.next_multiple_of(16).max(16);
        let scratch = recording.scratch.iter().enumerate();
        let mut lives: Vec<Life> = scratch
            .map(|(i, s)| Life { bytes: padded(s.bytes), first: s.step, last: s.step, of: Of::Scratch(i) })
            .collect();
        let last = plan.last_uses();
        let mut known = vec![false; plan.values().len()];
        for (first, step) in plan.steps().iter().enumerate() {
            for v in step.writes.iter().chain(&step.reads) {
                let info = plan.info(*v);
                if info.resident.is_none() && !std::mem::replace(&mut known[v.index()], true) {
                    let bytes = padded(info.shape.iter().product::<usize>() * 4);
                    lives.push(Life { bytes, first, last: last[v.index()], of: Of::Value(v.index()) });
                }
            }
        }
        lives
    }

    /// The buffers, taken from the arena that all programs share where one fits.
    pub(super) fn buffers(&self, gpu: &Gpu) -> Result<Vec<Arc<Held>>> {
        let mut arena = lock(&gpu.0.arena);
        arena.retain(|w| w.strong_count() > 0);
        let mut taken: Vec<Arc<Held>> = Vec::new();
        let mut out: Vec<Option<Arc<Held>>> = vec![None; self.sizes.len()];
        // large ones choose first
        let mut order: Vec<usize> = (0..self.sizes.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(self.sizes[*i]));
        for i in order {
            let bytes = self.sizes[i] as u64;
            let mut fits: Vec<Arc<Held>> = arena.iter().filter_map(Weak::upgrade).collect();
            fits.retain(|h| h.bytes >= bytes && !taken.iter().any(|t| Arc::ptr_eq(t, h)));
            let held = match fits.into_iter().min_by_key(|h| h.bytes) {
                Some(h) => h,
                None => {
                    let h = Arc::new(gpu.buffer(
                        "temporary",
                        self.sizes[i],
                        Purpose::Temporary,
                        wgpu::BufferUsages::STORAGE,
                    )?);
                    arena.push(Arc::downgrade(&h));
                    h
                }
            };
            taken.push(held.clone());
            out[i] = Some(held);
        }
        Ok(out.into_iter().flatten().collect())
    }
}
