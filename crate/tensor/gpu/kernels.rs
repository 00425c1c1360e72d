//! What `build.rs` made of `shaders/`: one module a kernel family, every binding a typed field.
//!
//! A kernel here is data: which permutation, what is bound, its parameters. Recording and running are elsewhere.

use crate::tensor::device::Tensor;
use crate::tensor::plan::Value;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// How a binding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The parameters.
    Uniform,
    /// Storage that is only read.
    Read,
    /// Storage that is written (and perhaps read).
    Write,
}

/// One linked, checked shader.
#[derive(Debug)]
pub struct Permutation {
    /// Family and features: `gemm_q8_0_straight_rows`.
    pub name: &'static str,
    /// The text that devices get.
    pub wgsl: &'static str,
    /// Threads of a workgroup.
    pub workgroup: [u32; 3],
    /// Bytes of workgroup memory; every device gives 16 KiB.
    pub shared: u32,
    /// Index and kind of every binding.
    pub bindings: &'static [(u32, Kind)],
}

/// What is bound, as data: buffers are found when a plan is made ready.
#[derive(Clone, Debug)]
pub enum Bind {
    /// A value of the plan.
    Value(Value),
    /// One slice of a tensor that outlives the plan.
    Tensor(Tensor, usize),
    /// A scratch value of one step.
    Scratch(usize),
    /// A table that the host computed for one step.
    Table(usize),
    /// Nothing that is ever read.
    None,
}

/// Something to be read by a kernel.
#[derive(Clone, Debug)]
pub struct Read(pub(crate) Bind);

/// Something to be written by a kernel.
#[derive(Clone, Debug)]
pub struct Write(pub(crate) Bind);

/// A kernel with everything it needs.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which shader.
    pub permutation: &'static Permutation,
    /// What is bound where; only what the permutation has.
    pub binds: Vec<(u32, Bind)>,
    /// The bytes of its uniforms.
    pub params: Vec<u8>,
}

impl Call {
    pub(crate) fn new(permutation: &'static Permutation, mut binds: Vec<(u32, Bind)>, params: Vec<u8>) -> Self {
        binds.retain(|(i, _)| permutation.bindings.iter().any(|(j, _)| i == j));
        Self { permutation, binds, params }
    }
}

/// A typed kernel.
pub trait Kernel {
    /// As data.
    fn call(self) -> Call;
}

/// How a shader reads weights. The last two are for rows that are no multiple of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// f32, four at a time.
    F32,
    /// f16, four at a time.
    F16,
    /// Planes of signed bytes and scales.
    Q8_0,
    /// Planes of nibbles and scales.
    Q4_0,
    /// Planes of nibbles, scales and minima.
    Q4_1,
    /// f32, one at a time.
    F32Single,
    /// f16, one at a time.
    F16Single,
}

impl WeightFormat {
    /// All of them.
    pub const ALL: [WeightFormat; 7] =
        [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::F32Single, Self::F16Single];

    /// The shaders' feature.
    #[must_use]
    pub fn feature(self) -> &'static str {
        match self {
            Self::F32 => "wf32",
            Self::F16 => "wf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::F32Single => "wf32s",
            Self::F16Single => "wf16s",
        }
    }

    /// Whether rows are decoded number by number.
    #[must_use]
    pub fn single(self) -> bool {
        matches!(self, Self::F32Single | Self::F16Single)
    }

    /// Whether numbers come in blocks of 32.
    #[must_use]
    pub fn blocks(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    fn place(self, features: &[&str]) -> usize {
        features.iter().position(|f| *f == self.feature()).expect("variants.rs chooses only formats that a family has")
    }
}

/// Every permutation of every family, by name.
#[must_use]
pub fn all() -> Vec<&'static Permutation> {
    let mut all: Vec<&'static Permutation> = FAMILIES.iter().flat_map(|f| f.iter()).collect();
    all.sort_by_key(|p| p.name);
    all
}
