//! The device, chosen once at the door, and tensors that live on it.

use std::sync::{Arc, RwLock};

use super::{
    blocks::{self, DType},
    cpu::CpuData,
    gpu,
    plan::Look,
};
use crate::error::{Code, Error, Result};

/// How the CPU device multiplies quantised matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// Activations stay f32, weights are decoded a row at a time. What equality is claimed for.
    Exact,
    /// Activations are rounded to blocks of int8 where a row meets quantised weights (`int8.rs`).
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
    ///
    /// # Errors
    /// `pack-invalid` for bytes that are too many or too few; `out-of-memory`, `device-lost`, `closed`.
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
            _ => CpuData::Blocks(bytes),
        }));
        Ok(Tensor::new(label, shape, dtype, storage))
    }

    /// A tensor of small numbers without meaning, made where it lies.
    ///
    /// # Errors
    /// `pack-invalid` where blocks would straddle rows, `internal` for ids; `out-of-memory`, `device-lost`, `closed`.
    pub fn random(&self, label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        match self {
            Device::Cpu(_) => {
                let rows: usize = shape.iter().rev().skip(1).product();
                let bytes = dtype.row_bytes(shape.last().copied().unwrap_or(1))? * rows;
                let pattern = blocks::noise(dtype)?;
                self.take(label, shape, dtype, pattern.into_iter().cycle().take(bytes).collect())
            }
            Device::Gpu(gpu) => Ok(Tensor::new(label, shape, dtype, Storage::Gpu(gpu.random(label, shape, dtype)?))),
        }
    }

    /// A tensor of f32 numbers.
    ///
    /// # Errors
    /// `pack-invalid` for bytes that are too many or too few; `out-of-memory`, `device-lost`, `closed`.
    pub fn tensor_f32(&self, label: &str, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        self.tensor(label, shape, DType::F32, bytemuck::cast_slice(data))
    }

    /// A tensor of ids.
    ///
    /// # Errors
    /// `pack-invalid` for bytes that are too many or too few; `out-of-memory`, `device-lost`, `closed`.
    pub fn tensor_u32(&self, label: &str, shape: &[usize], data: &[u32]) -> Result<Tensor> {
        self.tensor(label, shape, DType::U32, bytemuck::cast_slice(data))
    }

    /// A tensor of zeros; `dtype` is f32 or u32.
    ///
    /// # Errors
    /// `internal` for another type; `out-of-memory`, `device-lost`, `closed`.
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
    ///
    /// # Errors
    /// `internal` for numbers of another type or beyond the tensor's end; `device-lost`, `closed`.
    pub fn write_f32(&self, tensor: &Tensor, first: usize, data: &[f32]) -> Result<()> {
        self.write(tensor, first, data)
    }

    /// Overwrites elements from `first` on. The tensor is u32.
    ///
    /// # Errors
    /// `internal` for numbers of another type or beyond the tensor's end; `device-lost`, `closed`.
    pub fn write_u32(&self, tensor: &Tensor, first: usize, data: &[u32]) -> Result<()> {
        self.write(tensor, first, data)
    }

    fn write<T: Number>(&self, tensor: &Tensor, first: usize, data: &[T]) -> Result<()> {
        check_range::<T>(tensor, first, data.len())?;
        let bytes = bytemuck::cast_slice(data);
        match (self, tensor.storage()) {
            (Device::Cpu(_), Storage::Cpu(cell)) => {
                let mut data = cell.write().expect("no twin panics");
                data.bytes_mut()?[first * 4..first * 4 + bytes.len()].copy_from_slice(bytes);
            }
            (Device::Gpu(gpu), Storage::Gpu(t)) => gpu.write(t, first * 4, bytes)?,
            _ => return Err(Error::internal(format!("{} lives on another device", tensor.label()))),
        }
        Ok(())
    }

    /// Reads f32 tensors back, in one wait on a GPU.
    ///
    /// # Errors
    /// `internal` for numbers of another type or beyond the tensor's end; `out-of-memory`, `device-lost`, `closed`.
    pub async fn read_f32(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        self.look(&tensors.iter().map(|t| Look::all(t)).collect::<Vec<_>>()).await
    }

    /// Reads u32 tensors back, in one wait on a GPU.
    ///
    /// # Errors
    /// `internal` for numbers of another type or beyond the tensor's end; `out-of-memory`, `device-lost`, `closed`.
    pub async fn read_u32(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<u32>>> {
        self.look(&tensors.iter().map(|t| Look::all(t)).collect::<Vec<_>>()).await
    }

    /// Reads tensors, or parts of them, in one wait on a GPU.
    ///
    /// # Errors
    /// `internal` for numbers of another type or beyond the tensor's end; `out-of-memory`, `device-lost`, `closed`.
    pub async fn look<T: Number>(&self, looks: &[Look<'_>]) -> Result<Vec<Vec<T>>> {
        check_looks::<T>(looks)?;
        let raw = match self {
            Device::Cpu(_) => looks
                .iter()
                .map(|l| Ok(l.tensor.cpu()?.bytes()?[l.first * 4..(l.first + l.count) * 4].to_vec()))
                .collect::<Result<Vec<_>>>()?,
            Device::Gpu(gpu) => gpu.read(looks).await?,
        };
        Ok(raw.iter().map(|b| bytemuck::pod_collect_to_vec(b)).collect())
    }

    /// Copies the first `count` numbers of a tensor over those of another.
    ///
    /// # Errors
    /// `internal` where one of them is shorter, or of another type; `device-lost`, `closed`.
    pub fn copy(&self, from: &Tensor, to: &Tensor, count: usize) -> Result<()> {
        for t in [from, to] {
            if t.len() < count || t.dtype() != from.dtype() || t.dtype().block_bytes() != 4 {
                return Err(Error::internal("the tensor can't be copied so").at(t.label()));
            }
        }
        match self {
            Device::Cpu(_) => {
                to.cpu_mut()?.bytes_mut()?[..count * 4].copy_from_slice(&from.cpu()?.bytes()?[..count * 4]);
                Ok(())
            }
            Device::Gpu(gpu) => gpu.copy(from, to, count * 4),
        }
    }
}

/// The types of numbers that the host reads and writes.
pub trait Number: bytemuck::Pod {
    /// As tensors have it.
    const DTYPE: DType;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
}

impl Number for u32 {
    const DTYPE: DType = DType::U32;
}

fn check_range<T: Number>(tensor: &Tensor, first: usize, count: usize) -> Result<()> {
    if tensor.dtype() != T::DTYPE || first + count > tensor.len() {
        let want = format!("{count} of {} from {first} on", T::DTYPE);
        return Err(Error::internal("a tensor is not what is read or written")
            .expected(want, format!("{} of {}", tensor.len(), tensor.dtype()))
            .at(tensor.label()));
    }
    Ok(())
}

pub(super) fn check_looks<T: Number>(looks: &[Look<'_>]) -> Result<()> {
    looks.iter().try_for_each(|l| check_range::<T>(l.tensor, l.first, l.count))
}

fn check_size(label: &str, shape: &[usize], dtype: DType, bytes: usize) -> Result<()> {
    let rows: usize = shape.iter().rev().skip(1).product();
    let want = dtype.row_bytes(shape.last().copied().unwrap_or(1))? * rows;
    if bytes == want {
        return Ok(());
    }
    Err(Error::new(Code::PackInvalid, "the tensor has the wrong number of bytes").expected(want, bytes).at(label))
}
