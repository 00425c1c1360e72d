//! The device, chosen once at the door, and tensors that live on it.

use std::sync::{Arc, RwLock};

use super::{
    blocks::{self, DType},
    cpu::CpuData,
    gpu,
};
use crate::error::{Code, Error, Result};

/// How the CPU device multiplies quantised matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// Activations stay f32, weights are decoded a row at a time. What equality is claimed for.
    Exact,
    /// candle's quantised products, which round activations to int8 blocks.
    Fast,
}

/// Where a model runs. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Device {
    /// The twins, in this process.
    Cpu(Numerics),
    /// The kernels, on an adapter.
    Gpu(gpu::Gpu),
}

/// A tensor that outlives plans: weights, caches, what stages hand to each other. Cheap to clone; row-major.
#[derive(Clone, Debug)]
pub struct Tensor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    label: String,
    shape: Vec<usize>,
    dtype: DType,
    storage: Storage,
}

/// The device's side of a tensor.
#[derive(Debug)]
pub enum Storage {
    /// In this process.
    Cpu(RwLock<CpuData>),
    /// In buffers of an adapter.
    Gpu(gpu::GpuTensor),
}

impl Tensor {
    pub(crate) fn new(label: &str, shape: &[usize], dtype: DType, storage: Storage) -> Self {
        Self(Arc::new(Inner { label: label.to_owned(), shape: shape.to_vec(), dtype, storage }))
    }

    /// What it is called in messages and in the GPU's own labels.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Its shape, outermost axis first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Its element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Its storage.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Numbers in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shape.iter().product()
    }

    /// Whether it holds no number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of a matrix: all axes but the last.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.len() / self.cols().max(1)
    }

    /// Length of the last axis.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.0.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of its numbers as stored (padding of buffers not counted).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len() / self.dtype().block() * self.dtype().block_bytes()
    }

    /// Whether both names are the same storage.
    #[must_use]
    pub fn same(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Device {
    /// The CPU device with exact numerics.
    #[must_use]
    pub fn cpu() -> Self {
        Device::Cpu(Numerics::Exact)
    }

    /// A tensor from its bytes as files have them (little endian, GGUF's blocks, rows one after the other).
    pub fn tensor(&self, label: &str, shape: &[usize], dtype: DType, bytes: &[u8]) -> Result<Tensor> {
        match self {
            Device::Cpu(_) => self.take(label, shape, dtype, bytes.to_vec()),
            Device::Gpu(gpu) => {
                check_size(label, shape, dtype, bytes.len())?;
                Ok(Tensor::new(label, shape, dtype, Storage::Gpu(gpu.upload(label, shape, dtype, bytes)?)))
            }
        }
    }

    /// A tensor from bytes that need not be kept: on the CPU they are the tensor.
    pub(super) fn take(&self, label: &str, shape: &[usize], dtype: DType, bytes: Vec<u8>) -> Result<Tensor> {
        let Device::Cpu(_) = self else { return self.tensor(label, shape, dtype, &bytes) };
        check_size(label, shape, dtype, bytes.len())?;
        let storage = Storage::Cpu(RwLock::new(match dtype {
            DType::F32 => {
                let mut out = vec![0.0; bytes.len() / 4];
                blocks::decode(DType::F32, &bytes, &mut out);
                CpuData::F32(out)
            }
            DType::U32 => CpuData::U32(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()),
            _ => CpuData::blocks(bytes),
        }));
        Ok(Tensor::new(label, shape, dtype, storage))
    }

    /// A tensor of f32 numbers.
    pub fn tensor_f32(&self, label: &str, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        self.tensor(label, shape, DType::F32, bytemuck::cast_slice(data))
    }

    /// A tensor of ids.
    pub fn tensor_u32(&self, label: &str, shape: &[usize], data: &[u32]) -> Result<Tensor> {
        self.tensor(label, shape, DType::U32, bytemuck::cast_slice(data))
    }

    /// A tensor of zeros; `dtype` is f32 or u32.
    pub fn zeros(&self, label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let n = shape.iter().product();
        let storage = match self {
            Device::Cpu(_) => Storage::Cpu(RwLock::new(match dtype {
                DType::U32 => CpuData::U32(vec![0; n]),
                DType::F32 => CpuData::F32(vec![0.0; n]),
                other => return Err(Error::internal(format!("{label}: no zeros of {other}"))),
            })),
            Device::Gpu(gpu) => Storage::Gpu(gpu.zeros(label, shape, dtype)?),
        };
        Ok(Tensor::new(label, shape, dtype, storage))
    }

    /// Overwrites elements from `first` on. The tensor is f32.
    pub fn write_f32(&self, tensor: &Tensor, first: usize, data: &[f32]) -> Result<()> {
        match (self, tensor.storage()) {
            (Device::Cpu(_), Storage::Cpu(cell)) => {
                cell.write().expect("no twin panics").f32_mut()?[first..first + data.len()].copy_from_slice(data)
            }
            (Device::Gpu(gpu), Storage::Gpu(t)) => gpu.write(t, first * 4, bytemuck::cast_slice(data))?,
            _ => return Err(Error::internal(format!("{} lives on another device", tensor.label()))),
        }
        Ok(())
    }

    /// Overwrites elements from `first` on. The tensor is u32.
    pub fn write_u32(&self, tensor: &Tensor, first: usize, data: &[u32]) -> Result<()> {
        match (self, tensor.storage()) {
            (Device::Cpu(_), Storage::Cpu(cell)) => {
                cell.write().expect("no twin panics").u32_mut()?[first..first + data.len()].copy_from_slice(data)
            }
            (Device::Gpu(gpu), Storage::Gpu(t)) => gpu.write(t, first * 4, bytemuck::cast_slice(data))?,
            _ => return Err(Error::internal(format!("{} lives on another device", tensor.label()))),
        }
        Ok(())
    }

    /// Reads f32 tensors back, in one wait on a GPU.
    pub async fn read_f32(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        match self {
            Device::Cpu(_) => tensors.iter().map(|t| Ok(t.cpu()?.f32()?.to_vec())).collect(),
            Device::Gpu(gpu) => {
                let raw = gpu.read(tensors).await?;
                Ok(raw.iter().map(|b| bytemuck::pod_collect_to_vec(b)).collect())
            }
        }
    }

    /// Reads `count` numbers of a u32 tensor, from number `first` on.
    pub async fn read_u32_part(&self, tensor: &Tensor, first: usize, count: usize) -> Result<Vec<u32>> {
        match self {
            Device::Cpu(_) => Ok(tensor.cpu()?.u32()?[first..first + count].to_vec()),
            Device::Gpu(gpu) => Ok(bytemuck::pod_collect_to_vec(&gpu.read_part(tensor, first * 4, count * 4).await?)),
        }
    }

    /// Reads u32 tensors back, in one wait on a GPU.
    pub async fn read_u32(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<u32>>> {
        match self {
            Device::Cpu(_) => tensors.iter().map(|t| Ok(t.cpu()?.u32()?.to_vec())).collect(),
            Device::Gpu(gpu) => {
                let raw = gpu.read(tensors).await?;
                Ok(raw.iter().map(|b| bytemuck::pod_collect_to_vec(b)).collect())
            }
        }
    }
}

fn check_size(label: &str, shape: &[usize], dtype: DType, bytes: usize) -> Result<()> {
    let rows: usize = shape.iter().rev().skip(1).product();
    let want = dtype.row_bytes(shape.last().copied().unwrap_or(1))? * rows;
    if bytes == want {
        return Ok(());
    }
    Err(Error::new(Code::PackInvalid, "the tensor has the wrong number of bytes").expected(want, bytes).at(label))
}
