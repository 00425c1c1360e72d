//! A tensor on its way onto a device, piece by piece, so that no second copy of it rests anywhere.

use super::blocks::DType;
use super::device::{Device, Tensor};
use super::gpu;
use crate::error::{Code, Error, Result};

pub use super::gpu::Bytes;

/// A tensor whose bytes come as files have them, in order, cut anywhere.
#[derive(Debug)]
pub struct Upload {
    label: String,
    shape: Vec<usize>,
    dtype: DType,
    to: To,
}

#[derive(Debug)]
enum To {
    Cpu { device: Device, bytes: Vec<u8>, want: usize },
    Gpu(gpu::Upload),
}

impl Device {
    /// Begins a tensor.
    ///
    /// # Errors
    /// `pack-invalid` where blocks would straddle rows; `out-of-memory`, `device-lost`, `closed`.
    pub fn begin(&self, label: &str, shape: &[usize], dtype: DType) -> Result<Upload> {
        let to = match self {
            Device::Gpu(gpu) => To::Gpu(gpu.begin(label, shape, dtype)?),
            Device::Cpu(_) => {
                let rows: usize = shape.iter().rev().skip(1).product();
                let want = dtype.row_bytes(shape.last().copied().unwrap_or(1))? * rows;
                To::Cpu { device: self.clone(), bytes: Vec::with_capacity(want), want }
            }
        };
        Ok(Upload { label: label.to_owned(), shape: shape.to_vec(), dtype, to })
    }
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `pack-invalid` where they are more than the shape says; the device's own.
    pub async fn write<B: Bytes + ?Sized>(&mut self, next: &B) -> Result<()> {
        match &mut self.to {
            To::Gpu(upload) => upload.write(next).await,
            To::Cpu { bytes, want, .. } => {
                let at = bytes.len();
                if at + next.len() > *want {
                    return Err(
                        Error::new(Code::PackInvalid, "the tensor has more bytes than its shape").at(&self.label)
                    );
                }
                bytes.resize(at + next.len(), 0);
                next.copy(0, &mut bytes[at..]);
                Ok(())
            }
        }
    }

    /// The tensor, once all bytes have come.
    ///
    /// # Errors
    /// `pack-invalid` where they have not.
    pub fn finish(self) -> Result<Tensor> {
        match self.to {
            To::Gpu(upload) => upload.finish(),
            To::Cpu { device, bytes, .. } => device.take(&self.label, &self.shape, self.dtype, bytes),
        }
    }
}
