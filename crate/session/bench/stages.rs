//! Stages, rounds of them, and what each run cost.

use serde::Serialize;
use web_time::Instant;

use crate::tensor::gpu::Counters;
use crate::tensor::probe::Rates;
use crate::tensor::{Device, Plan};

/// What the GPU was asked for so far; zeros on the processor.
pub(super) fn counters(device: &Device) -> Counters {
    match device {
        Device::Gpu(gpu) => gpu.counters(),
        Device::Cpu(_) => Counters::default(),
    }
}

/// Milliseconds of the runs of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// The middle one.
    pub median: f64,
    /// The shortest.
    pub min: f64,
    /// How many runs there were.
    pub runs: usize,
}

/// A stage of the pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// As the pipeline calls it.
    pub name: String,
    /// How long it takes.
    pub ms: Times,
    /// Floating-point operations of a run, additions and multiplications counted apart.
    pub flops: u64,
    /// Bytes that a run must read at least: weights, cached keys and values, what the host reads.
    pub bytes: u64,
    /// What the device's measured rates allow.
    pub floor_ms: f64,
    /// What the GPU was asked for in the last run.
    pub counters: Counters,
    #[serde(skip)]
    runs: Vec<f64>,
}

/// What a run of a stage has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) flops: u64,
    pub(super) bytes: u64,
}

impl Work {
    /// Work of the host that only moves bytes.
    pub(super) fn bytes(bytes: usize) -> Self {
        Self { flops: 0, bytes: bytes as u64 }
    }

    /// The work of a plan's steps in one stage.
    pub(super) fn of(plan: &Plan, stage: &str) -> Self {
        let steps = || plan.steps().iter().filter(|s| s.stage() == stage);
        Self { flops: steps().map(|s| s.op.flops(plan)).sum(), bytes: steps().map(|s| s.op.weight_bytes()).sum() }
    }
}

/// A moment, and what the GPU was asked for until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    at: Instant,
    counters: Counters,
}

impl Moment {
    pub(super) fn now(device: &Device) -> Self {
        Self { at: Instant::now(), counters: counters(device) }
    }
}

/// Stages in the order of their first run.
#[derive(Debug)]
pub(super) struct Stages {
    rates: Rates,
    device: Device,
    begin: Moment,
    all: Vec<Stage>,
}

impl Stages {
    pub(super) fn new(device: &Device, rates: Rates) -> Self {
        Self { rates, device: device.clone(), begin: Moment::now(device), all: Vec::new() }
    }

    fn named(&mut self, name: &str) -> &mut Stage {
        let at = self.all.iter().position(|s| s.name == name).unwrap_or_else(|| {
            self.all.push(Stage {
                name: name.to_owned(),
                ms: Times::default(),
                flops: 0,
                bytes: 0,
                floor_ms: 0.0,
                counters: Counters::default(),
                runs: Vec::new(),
            });
            self.all.len() - 1
        });
        &mut self.all[at]
    }

    /// What comes now belongs to the stage that ends next.
    pub(super) fn begin(&mut self) {
        self.begin = Moment::now(&self.device);
    }

    /// What passed since the last beginning or end was a stage, or a part of it: parts add up.
    pub(super) fn end(&mut self, name: &str, work: Work) {
        self.end_until(Moment::now(&self.device), name, work);
        self.begin();
    }

    /// The same where it ended at another moment than now.
    pub(super) fn end_until(&mut self, until: Moment, name: &str, work: Work) {
        self.end_between(self.begin, until, name, work);
    }

    /// The same for a stretch between two moments.
    pub(super) fn end_between(&mut self, from: Moment, until: Moment, name: &str, work: Work) {
        let ms = until.at.duration_since(from.at).as_secs_f64() * 1e3;
        let stage = self.named(name);
        match stage.runs.first_mut() {
            Some(run) => *run += ms,
            None => stage.runs.push(ms),
        }
        stage.flops += work.flops;
        stage.bytes += work.bytes;
        stage.counters += until.counters.since(&from.counters);
    }

    /// What the GPU was asked for in a stage.
    pub(super) fn counters(&self, name: &str) -> Counters {
        self.all.iter().find(|s| s.name == name).map_or_else(Counters::default, |s| s.counters)
    }

    /// Adds another round's runs.
    pub(super) fn take(&mut self, round: Stages) {
        for stage in round.all {
            let mine = self.named(&stage.name);
            mine.runs.extend(stage.runs);
            (mine.flops, mine.bytes, mine.counters) = (stage.flops, stage.bytes, stage.counters);
        }
    }

    /// All stages with their times and floors.
    pub(super) fn done(mut self) -> Vec<Stage> {
        for stage in &mut self.all {
            stage.runs.sort_by(f64::total_cmp);
            let at = |i: usize| stage.runs.get(i).copied().unwrap_or(0.0);
            stage.ms = Times { median: at(stage.runs.len() / 2), min: at(0), runs: stage.runs.len() };
            let seconds = (stage.flops as f64 / self.rates.flops).max(stage.bytes as f64 / self.rates.bytes);
            stage.floor_ms = seconds * 1e3;
        }
        self.all
    }
}
