//! Stub until the GPU lands.
#![allow(missing_docs, reason = "replaced soon")]
use super::{
    blocks::DType,
    device::Tensor,
    plan::{Plan, Run},
};
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

use super::ops;
impl Lower<'_> {
    pub(crate) fn first_columns(&mut self, _op: &ops::rows::FirstColumns) -> Result<()> {
        Err(none())
    }
    pub(crate) fn class_row(&mut self, _op: &ops::rows::ClassRow) -> Result<()> {
        Err(none())
    }
    pub(crate) fn copy(&mut self, _op: &ops::copy::Copy) -> Result<()> {
        Err(none())
    }
    pub(crate) fn linear(&mut self, _op: &ops::linear::LinearOp) -> Result<()> {
        Err(none())
    }
    pub(crate) fn layer_norm(&mut self, _op: &ops::norm::LayerNorm) -> Result<()> {
        Err(none())
    }
    pub(crate) fn rms_norm(&mut self, _op: &ops::norm::RmsNorm) -> Result<()> {
        Err(none())
    }
    pub(crate) fn group_norm(&mut self, _op: &ops::norm::GroupNorm) -> Result<()> {
        Err(none())
    }
    pub(crate) fn attention(&mut self, _op: &ops::attention::Attention) -> Result<()> {
        Err(none())
    }
    pub(crate) fn cached_attention(&mut self, _op: &ops::attention::CachedAttention) -> Result<()> {
        Err(none())
    }
    pub(crate) fn qkv(&mut self, _op: &ops::qkv::Qkv) -> Result<()> {
        Err(none())
    }
    pub(crate) fn gate_up(&mut self, _op: &ops::gate_up::GateUp) -> Result<()> {
        Err(none())
    }
    pub(crate) fn conv2d(&mut self, _op: &ops::conv::Conv2d) -> Result<()> {
        Err(none())
    }
    pub(crate) fn conv_transpose(&mut self, _op: &ops::conv::ConvTranspose) -> Result<()> {
        Err(none())
    }
    pub(crate) fn average(&mut self, _op: &ops::rows::Average) -> Result<()> {
        Err(none())
    }
    pub(crate) fn gather_rows(&mut self, _op: &ops::rows::GatherRows) -> Result<()> {
        Err(none())
    }
    pub(crate) fn last_row(&mut self, _op: &ops::rows::LastRow) -> Result<()> {
        Err(none())
    }
    pub(crate) fn mask_rows(&mut self, _op: &ops::rows::MaskRows) -> Result<()> {
        Err(none())
    }
    pub(crate) fn rows_to_columns(&mut self, _op: &ops::rows::RowsToColumns) -> Result<()> {
        Err(none())
    }
    pub(crate) fn merge_cells(&mut self, _op: &ops::maps::MergeCells) -> Result<()> {
        Err(none())
    }
    pub(crate) fn with_coordinates(&mut self, _op: &ops::maps::WithCoordinates) -> Result<()> {
        Err(none())
    }
    pub(crate) fn exchange(&mut self, _op: &ops::maps::Exchange) -> Result<()> {
        Err(none())
    }
    pub(crate) fn deformable(&mut self, _op: &ops::deformable::DeformableOp) -> Result<()> {
        Err(none())
    }
    pub(crate) fn top_k(&mut self, _op: &ops::top_k::TopK) -> Result<()> {
        Err(none())
    }
    pub(crate) fn first_reference(&mut self, _op: &ops::boxes::FirstReference) -> Result<()> {
        Err(none())
    }
    pub(crate) fn sine_reference(&mut self, _op: &ops::boxes::SineReference) -> Result<()> {
        Err(none())
    }
    pub(crate) fn refine(&mut self, _op: &ops::boxes::Refine) -> Result<()> {
        Err(none())
    }
    pub(crate) fn score_fusion(&mut self, _op: &ops::boxes::ScoreFusion) -> Result<()> {
        Err(none())
    }
    pub(crate) fn roi_align(&mut self, _op: &ops::roi_align::RoiAlign) -> Result<()> {
        Err(none())
    }
    pub(crate) fn embed(&mut self, _op: &ops::embed::Embed) -> Result<()> {
        Err(none())
    }
    pub(crate) fn argmax(&mut self, _op: &ops::argmax::Argmax) -> Result<()> {
        Err(none())
    }
}
