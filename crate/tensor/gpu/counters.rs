//! What the GPU was asked to do and holds, counted where it happens.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Totals since the device was made; take the difference of two snapshots. As JSON: what was done, not what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Dispatches encoded.
    pub dispatches: u64,
    /// Compute passes encoded.
    pub passes: u64,
    /// Command buffers submitted.
    pub submits: u64,
    /// Waits for data of the GPU.
    pub readbacks: u64,
    /// Bind groups made.
    pub bind_groups_created: u64,
    /// Buffers made.
    pub buffers_created: u64,
    /// Bytes written by the host.
    pub bytes_up: u64,
    /// Bytes read by the host.
    pub bytes_down: u64,
    /// Bytes held now: weights.
    #[serde(skip)]
    pub weight_bytes: u64,
    /// Bytes held now: tensors that outlive plans and are not weights (caches, what stages hand on).
    #[serde(skip)]
    pub kept_bytes: u64,
    /// Bytes held now: temporaries and parameters of plans, staging.
    #[serde(skip)]
    pub temporary_bytes: u64,
    /// The most bytes held at any time.
    #[serde(skip)]
    pub peak_bytes: u64,
}

impl Counters {
    /// Bytes held now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.kept_bytes + self.temporary_bytes
    }

    /// What happened since `earlier`; what is held stays as it is now.
    #[must_use]
    pub fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            dispatches: self.dispatches - earlier.dispatches,
            passes: self.passes - earlier.passes,
            submits: self.submits - earlier.submits,
            readbacks: self.readbacks - earlier.readbacks,
            bind_groups_created: self.bind_groups_created - earlier.bind_groups_created,
            buffers_created: self.buffers_created - earlier.buffers_created,
            bytes_up: self.bytes_up - earlier.bytes_up,
            bytes_down: self.bytes_down - earlier.bytes_down,
            ..*self
        }
    }
}

/// Adds what happened in another stretch; what is held is the later one's.
impl AddAssign for Counters {
    fn add_assign(&mut self, later: Counters) {
        *self = Counters {
            dispatches: self.dispatches + later.dispatches,
            passes: self.passes + later.passes,
            submits: self.submits + later.submits,
            readbacks: self.readbacks + later.readbacks,
            bind_groups_created: self.bind_groups_created + later.bind_groups_created,
            buffers_created: self.buffers_created + later.buffers_created,
            bytes_up: self.bytes_up + later.bytes_up,
            bytes_down: self.bytes_down + later.bytes_down,
            ..later
        };
    }
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Numbers that the model file holds.
    Weights,
    /// Tensors that outlive plans.
    Kept,
    /// Everything that belongs to a plan or to the way in or out.
    Temporary,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) dispatches: AtomicU64,
    pub(super) passes: AtomicU64,
    pub(super) submits: AtomicU64,
    pub(super) readbacks: AtomicU64,
    pub(super) bind_groups: AtomicU64,
    pub(super) buffers: AtomicU64,
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
    held: [AtomicU64; 3],
    peak: AtomicU64,
}

pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.fetch_add(n, Ordering::Relaxed);
}

impl Tally {
    pub(super) fn hold(&self, purpose: Purpose, bytes: u64) {
        add(&self.buffers, 1);
        add(&self.held[purpose as usize], bytes);
        self.peak.fetch_max(self.total(), Ordering::Relaxed);
    }

    pub(super) fn release(&self, purpose: Purpose, bytes: u64) {
        self.held[purpose as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn forget_peak(&self) {
        self.peak.store(self.total(), Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.held.iter().map(|h| h.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn snapshot(&self) -> Counters {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            dispatches: get(&self.dispatches),
            passes: get(&self.passes),
            submits: get(&self.submits),
            readbacks: get(&self.readbacks),
            bind_groups_created: get(&self.bind_groups),
            buffers_created: get(&self.buffers),
            bytes_up: get(&self.up),
            bytes_down: get(&self.down),
            weight_bytes: get(&self.held[Purpose::Weights as usize]),
            kept_bytes: get(&self.held[Purpose::Kept as usize]),
            temporary_bytes: get(&self.held[Purpose::Temporary as usize]),
            peak_bytes: get(&self.peak),
        }
    }
}
