//! The recorder: operations become calls of kernels, as data that can be printed and counted without a GPU.

use std::fmt::Write as _;

use super::kernels::{Bind, Call, Kernel, Read, Write};
use super::layout::{self, Slice};
use super::variants::{self, Traits, fold};
use crate::error::{At, Code, Error, Result};
use crate::tensor::blocks::DType;
use crate::tensor::device::Tensor;
use crate::tensor::plan::{Info, Plan, Value};

/// A dispatch: a call, how many workgroups, and the step of the plan that it belongs to.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel and what is bound.
    pub call: Call,
    /// Workgroups, folded into two dimensions.
    pub groups: [u32; 2],
    /// The step's place in the plan.
    pub step: usize,
    /// Its share of what the step costs, never 0: submits are cut by it.
    pub cost: u64,
}

/// A value that lives within one step.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// Its bytes.
    pub bytes: usize,
    /// The step.
    pub step: usize,
}

/// A weight's slice, as kernels want it.
#[derive(Clone, Debug)]
pub struct WeightSlice {
    /// To bind.
    pub read: Read,
    /// Rows and planes.
    pub slice: Slice,
}

/// Records the dispatches of a plan.
#[derive(Debug)]
pub struct Lower<'a> {
    plan: &'a Plan,
    traits: Traits,
    step: usize,
    /// What the kernels of this step cost, where it is not what the twin costs.
    cost: Option<u64>,
    dispatches: Vec<Dispatch>,
    scratch: Vec<Scratch>,
    tables: Vec<Vec<u32>>,
}

/// Everything that was recorded.
#[derive(Debug)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Values of single steps.
    pub scratch: Vec<Scratch>,
    /// What the host computed for kernels.
    pub tables: Vec<Vec<u32>>,
}

/// Lowers a whole plan; needs no GPU.
///
/// # Errors
/// What an operation says against its kernels, with the step's label: `out-of-memory` for what can't be bound,
/// `internal`.
pub fn lower(plan: &Plan, traits: Traits) -> Result<Recording> {
    let (dispatches, scratch, tables) = (Vec::new(), Vec::new(), Vec::new());
    let mut lower = Lower { plan, traits, step: 0, cost: None, dispatches, scratch, tables };
    for (i, step) in plan.steps().iter().enumerate() {
        lower.step = i;
        let first = lower.dispatches.len();
        step.op.gpu(&mut lower).map_err(|e| e.at(step.op.name())).at(&step.label)?;
        let cost = lower.cost.take().unwrap_or_else(|| step.op.cost(plan));
        let mine = &mut lower.dispatches[first..];
        let share = cost.div_ceil(mine.len().max(1) as u64).max(1);
        mine.iter_mut().for_each(|d| d.cost = share);
    }
    Ok(Recording { dispatches: lower.dispatches, scratch: lower.scratch, tables: lower.tables })
}

impl Recording {
    /// One line a dispatch: stage, kernel, workgroups.
    #[must_use]
    pub fn print(&self, plan: &Plan) -> String {
        let mut text = String::new();
        for d in &self.dispatches {
            let [x, y] = d.groups;
            let label = &plan.steps()[d.step].label;
            writeln!(text, "{label} {} {x}x{y}", d.call.permutation.name).expect("strings take everything");
        }
        text
    }
}

/// Sizes that kernels get are u32.
pub(crate) fn size(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::internal(format!("{n} is no size for a kernel")))
}

impl Lower<'_> {
    /// What is known of the adapter.
    #[must_use]
    pub fn traits(&self) -> Traits {
        self.traits
    }

    fn info(&self, v: Value) -> &Info {
        self.plan.info(v)
    }

    /// Numbers of a value.
    #[must_use]
    pub fn len(&self, v: Value) -> usize {
        self.info(v).shape.iter().product()
    }

    /// Rows of a value.
    #[must_use]
    pub fn rows(&self, v: Value) -> usize {
        self.plan.rows(v)
    }

    /// Columns of a value.
    #[must_use]
    pub fn cols(&self, v: Value) -> usize {
        self.plan.cols(v)
    }

    /// Fails where a value can't be bound in one piece.
    fn whole(&self, v: Value) -> Result<Bind> {
        // as it lies in its buffer (see `layout`)
        let bytes = (self.len(v) as u64 * 4).next_multiple_of(16);
        if bytes > self.traits.binding {
            return Err(Error::new(Code::OutOfMemory, "a value is larger than what the adapter can bind")
                .expected(format!("at most {} bytes", self.traits.binding), bytes));
        }
        Ok(Bind::Value(v))
    }

    /// A value to read.
    ///
    /// # Errors
    /// `out-of-memory` for a value that can't be bound in one piece.
    pub fn read(&self, v: Value) -> Result<Read> {
        self.whole(v).map(Read)
    }

    /// A value to write.
    ///
    /// # Errors
    /// `out-of-memory` for a value that can't be bound in one piece.
    pub fn write(&self, v: Value) -> Result<Write> {
        self.whole(v).map(Write)
    }

    /// A value to read, or nothing.
    ///
    /// # Errors
    /// `out-of-memory` for a value that can't be bound in one piece.
    pub fn read_or_none(&self, v: Option<Value>) -> Result<Read> {
        v.map_or(Ok(Self::none()), |v| self.read(v))
    }

    /// Nothing, where a kernel's parameters say that it is not read.
    #[must_use]
    pub fn none() -> Read {
        Read(Bind::None)
    }

    /// An f32 tensor in one piece: norms, biases, tables.
    ///
    /// # Errors
    /// `internal` for another type, `out-of-memory` for a tensor that can't be bound in one piece.
    pub fn vector(&self, t: &Tensor) -> Result<Read> {
        if t.dtype() != DType::F32 {
            return Err(Error::internal(format!("{} must be f32", t.label())));
        }
        let mut slices = self.weight(t)?;
        match (slices.pop(), slices.is_empty()) {
            (Some(one), true) => Ok(one.read),
            _ => Err(Error::new(Code::OutOfMemory, "the tensor must fit one binding").at(t.label())),
        }
    }

    /// An optional f32 tensor.
    ///
    /// # Errors
    /// `internal` for another type, `out-of-memory` for a tensor that can't be bound in one piece.
    pub fn vector_or_none(&self, t: Option<&Tensor>) -> Result<Read> {
        t.map_or(Ok(Self::none()), |t| self.vector(t))
    }

    /// A weight's slices.
    ///
    /// # Errors
    /// `out-of-memory` where not even one row can be bound.
    pub fn weight(&self, t: &Tensor) -> Result<Vec<WeightSlice>> {
        let slices = layout::slices(t.rows(), t.cols(), t.dtype(), self.traits.binding).at(t.label())?;
        Ok(slices
            .into_iter()
            .enumerate()
            .map(|(i, slice)| WeightSlice { read: Read(Bind::Tensor(t.clone(), i)), slice })
            .collect())
    }

    /// Numbers that live within this step.
    ///
    /// # Errors
    /// `out-of-memory` where so many can't be bound.
    pub fn scratch(&mut self, len: usize) -> Result<Scrap> {
        let bytes = len * 4;
        if bytes as u64 > self.traits.binding {
            return Err(Error::new(Code::OutOfMemory, "a scratch value is larger than what the adapter can bind")
                .expected(format!("at most {} bytes", self.traits.binding), bytes));
        }
        self.scratch.push(Scratch { bytes, step: self.step });
        Ok(Scrap(self.scratch.len() - 1))
    }

    /// A table that the host computed.
    pub fn table(&mut self, words: Vec<u32>) -> Read {
        self.tables.push(words);
        Read(Bind::Table(self.tables.len() - 1))
    }

    /// What the kernels of this step cost, where they go another way than the twin.
    pub fn costs(&mut self, cost: u64) {
        self.cost = Some(cost);
    }

    /// Records a dispatch of `groups` workgroups.
    pub fn dispatch(&mut self, kernel: impl Kernel, groups: usize) {
        if groups > 0 {
            self.dispatches.push(Dispatch { call: kernel.call(), groups: fold(groups), step: self.step, cost: 0 });
        }
    }

    /// Records a dispatch with a thread for each of `n` things.
    ///
    /// # Errors
    /// `internal` for more things than kernels count.
    pub fn each(&mut self, kernel: impl Kernel, n: usize) -> Result<()> {
        size(n)?;
        let call = kernel.call();
        let groups = n.div_ceil(call.permutation.workgroup[0] as usize);
        if groups > 0 {
            self.dispatches.push(Dispatch { call, groups: fold(groups), step: self.step, cost: 0 });
        }
        Ok(())
    }

    /// How rows of a weight are read.
    #[must_use]
    pub fn format(t: &Tensor) -> super::kernels::WeightFormat {
        variants::weight_format(t.dtype(), t.cols())
    }
}

/// A scratch value: written by one kernel, read by the next.
#[derive(Clone, Copy, Debug)]
pub struct Scrap(usize);

impl Scrap {
    /// To read.
    #[must_use]
    pub fn read(self) -> Read {
        Read(Bind::Scratch(self.0))
    }

    /// To write.
    #[must_use]
    pub fn write(self) -> Write {
        Write(Bind::Scratch(self.0))
    }
}
