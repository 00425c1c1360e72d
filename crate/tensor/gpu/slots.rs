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

impl Slots {
    /// Assigns buffers by liveness: a buffer is free again after the last step that touches its value.
    #[must_use]
    pub fn assign(plan: &Plan, recording: &Recording) -> Self {
        let last = plan.last_uses();
        let mut slots = Slots {
            sizes: Vec::new(),
            values: vec![None; plan.values().len()],
            scratch: vec![0; recording.scratch.len()],
        };
        let mut free: Vec<usize> = Vec::new();
        for (s, step) in plan.steps().iter().enumerate() {
            let mut ends = Vec::new();
            for v in step.writes.iter().chain(&step.reads) {
                let info = plan.info(*v);
                if info.resident.is_none() && slots.values[v.index()].is_none() {
                    let bytes = info.shape.iter().product::<usize>() * 4;
                    slots.values[v.index()] = Some(slots.take(&mut free, bytes));
                }
                let slot = slots.values[v.index()].filter(|_| last[v.index()] == s);
                ends.extend(slot.filter(|slot| !ends.contains(slot)));
            }
            for (i, scratch) in recording.scratch.iter().enumerate().filter(|(_, x)| x.step == s) {
                slots.scratch[i] = slots.take(&mut free, scratch.bytes);
                ends.push(slots.scratch[i]);
            }
            free.extend(ends);
        }
        slots
    }

    /// The free buffer that fits best; the largest one grows where none is large enough.
    fn take(&mut self, free: &mut Vec<usize>, bytes: usize) -> usize {
        let bytes = bytes.next_multiple_of(16).max(16);
        let fits = free.iter().enumerate().filter(|(_, s)| self.sizes[**s] >= bytes);
        let best = fits
            .min_by_key(|(_, s)| self.sizes[**s])
            .or_else(|| free.iter().enumerate().max_by_key(|(_, s)| self.sizes[**s]));
        if let Some((at, slot)) = best.map(|(at, s)| (at, *s)) {
            free.swap_remove(at);
            self.sizes[slot] = self.sizes[slot].max(bytes);
            return slot;
        }
        self.sizes.push(bytes);
        self.sizes.len() - 1
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
