//! Stub until the GPU lands.
#![allow(missing_docs, reason = "replaced soon")]
use super::{blocks::DType, device::Tensor, plan::{Plan, Run}};
use crate::error::{Code, Error, Result};

#[derive(Clone, Debug)]
pub struct Gpu;
#[derive(Debug)]
pub struct GpuTensor;
#[derive(Debug)]
pub struct Program;
pub struct Lower<'a>(std::marker::PhantomData<&'a ()>);

fn none() -> Error {
    Error::new(Code::NoWebgpu, "no GPU yet")
}

impl Gpu {
    pub fn upload(&self, _label: &str, _shape: &[usize], _dtype: DType, _bytes: &[u8]) -> Result<GpuTensor> {
        Err(none())
    }
    pub fn zeros(&self, _label: &str, _shape: &[usize], _dtype: DType) -> Result<GpuTensor> {
        Err(none())
    }
    pub fn write(&self, _t: &GpuTensor, _offset: usize, _bytes: &[u8]) -> Result<()> {
        Err(none())
    }
    pub async fn read(&self, _tensors: &[&Tensor]) -> Result<Vec<Vec<u8>>> {
        Err(none())
    }
}
impl Program {
    pub fn new(_gpu: &Gpu, _plan: &Plan) -> Result<Self> {
        Err(none())
    }
    pub async fn run(&self, _gpu: &Gpu, _ctx: &Run<'_>) -> Result<()> {
        Err(none())
    }
}
