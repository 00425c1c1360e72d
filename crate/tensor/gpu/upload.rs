//! Weights that come piece by piece: bytes as files have them, laid into planes by a kernel.

use super::counters::{Purpose, add};
use super::device::Gpu;
use super::kernels::{Kernel, Read, Write, planes};
use super::layout::Slice;
use super::memory::{GpuTensor, Held};
use super::variants::{self, fold};
use crate::error::{At, Code, Error, Result};
use crate::tensor::blocks::DType;
use crate::tensor::device::{Storage, Tensor};

/// Bytes that may wait in staging before they are submitted.
pub(super) const FLIGHT: usize = 8 << 20;

impl Gpu {
    /// Begins a tensor whose bytes come piece by piece.
    ///
    /// # Errors
    /// `pack-invalid` where blocks would straddle rows; `out-of-memory`, `device-lost`, `closed`.
    pub fn begin(&self, label: &str, shape: &[usize], dtype: DType) -> Result<Upload> {
        let tensor = self.allocate(label, shape, dtype, Purpose::Weights)?;
        let staging = if tensor.parts.iter().any(|(s, _)| s.scales > 0) {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            Some(self.buffer("staging blocks", STAGING_BYTES, Purpose::Temporary, usage)?)
        } else {
            None
        };
        Ok(Upload {
            gpu: self.clone(),
            label: label.to_owned(),
            shape: shape.to_vec(),
            unit: unit(dtype),
            tensor,
            staging,
            part: 0,
            at: 0,
            carry: Vec::new(),
            flight: 0,
        })
    }
}

/// Raw bytes of the staging buffer of an upload: what one kernel lays out at once.
const STAGING_BYTES: usize = 2 << 20;

/// Bytes that go together: whole words, and as many blocks as share a word of scales.
fn unit(dtype: DType) -> usize {
    match dtype {
        DType::Q8_0 => 68,
        DType::Q4_0 => 36,
        DType::Q4_1 => 20,
        DType::F32 | DType::F16 | DType::U32 => 4,
    }
}

/// Where streamed bytes are: in this process, or outside of it (a JavaScript array).
pub trait Bytes {
    /// How many.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies a few bytes from `at` on.
    fn copy(&self, at: usize, out: &mut [u8]);
    /// Writes `count` bytes from `at` on into a buffer.
    fn send(&self, gpu: &Gpu, at: usize, count: usize, buffer: &wgpu::Buffer, offset: u64);
}

impl Bytes for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy(&self, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[at..at + out.len()]);
    }

    fn send(&self, gpu: &Gpu, at: usize, count: usize, buffer: &wgpu::Buffer, offset: u64) {
        gpu.send(buffer, offset, &self[at..at + count]);
    }
}

/// A tensor on its way: bytes as files have them, in order, cut anywhere. Nothing but the bytes of one unit stays here.
#[derive(Debug)]
pub struct Upload {
    gpu: Gpu,
    label: String,
    shape: Vec<usize>,
    unit: usize,
    tensor: GpuTensor,
    staging: Option<Held>,
    /// The slice that is being filled, and how many of its raw bytes it has.
    part: usize,
    at: usize,
    /// The beginning of a unit whose end has not come yet.
    carry: Vec<u8>,
    /// Bytes written since the last wait.
    flight: usize,
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// `pack-invalid` for more bytes than the tensor has; `out-of-memory`, `device-lost`, `closed`.
    pub async fn write<B: Bytes + ?Sized>(&mut self, bytes: &B) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            let Some((slice, _)) = self.tensor.parts.get(self.part) else {
                return Err(Error::new(Code::PackInvalid, "the tensor has more bytes than its shape").at(&self.label));
            };
            let left = slice.raw - self.at - self.carry.len();
            let mut count = (bytes.len() - at).min(left);
            let ends = count == left;
            if !self.carry.is_empty() || (count < self.unit && !ends) || (ends && !count.is_multiple_of(self.unit)) {
                // a unit across a cut, or the slice's last one, goes by hand
                let body = if self.carry.is_empty() { count / self.unit * self.unit } else { 0 };
                if body > 0 {
                    count = body;
                    self.send(bytes, at, count)?;
                } else {
                    count = count.min(self.unit - self.carry.len());
                    let start = self.carry.len();
                    self.carry.resize(start + count, 0);
                    bytes.copy(at, &mut self.carry[start..]);
                    self.flush_carry(count == left)?;
                }
            } else {
                count = (count / self.unit * self.unit).min(STAGING_BYTES / self.unit * self.unit);
                self.send(bytes, at, count)?;
            }
            at += count;
            self.flight += count;
            if self.flight >= FLIGHT {
                self.flight = 0;
                let sent = self.gpu.submit_nothing();
                self.gpu.done(Some(sent)).await;
                self.gpu.settle().await.at(&self.label)?;
            }
            if self.tensor.parts.get(self.part).is_some_and(|(s, _)| self.at == s.raw) {
                self.part += 1;
                self.at = 0;
            }
        }
        Ok(())
    }

    /// Sends the carried unit if it is whole, or the slice ends with it.
    fn flush_carry(&mut self, ends: bool) -> Result<()> {
        if self.carry.len() < self.unit && !ends {
            return Ok(());
        }
        let mut carry = std::mem::take(&mut self.carry);
        let real = carry.len();
        carry.resize(self.unit, 0);
        self.send(carry.as_slice(), 0, self.unit)?;
        self.at -= self.unit - real;
        carry.clear();
        self.carry = carry;
        Ok(())
    }

    /// Sends whole units to where the slice has got to.
    fn send<B: Bytes + ?Sized>(&mut self, bytes: &B, at: usize, count: usize) -> Result<()> {
        let mut done = 0;
        while done < count {
            let part = (count - done).min(STAGING_BYTES / self.unit * self.unit);
            let (slice, held) = &self.tensor.parts[self.part];
            match &self.staging {
                None => bytes.send(&self.gpu, at + done, part, &held.buffer, self.at as u64),
                Some(staging) => {
                    bytes.send(&self.gpu, at + done, part, &staging.buffer, 0);
                    let job = Job { first: self.at / self.unit, units: part / self.unit, slice: *slice };
                    lay(&self.gpu, self.tensor.dtype, &job, &staging.buffer, &held.buffer)?;
                }
            }
            self.at += part;
            done += part;
        }
        Ok(())
    }

    /// The tensor, once all bytes have come.
    ///
    /// # Errors
    /// `pack-invalid` for fewer bytes than the tensor has; `device-lost`, `closed`.
    pub fn finish(self) -> Result<Tensor> {
        if self.part < self.tensor.parts.len() {
            let want: usize = self.tensor.parts.iter().map(|(s, _)| s.raw).sum();
            let got: usize = self.tensor.parts[..self.part].iter().map(|(s, _)| s.raw).sum();
            let got = got + self.at + self.carry.len();
            return Err(Error::new(Code::PackInvalid, "the tensor ends early").expected(want, got).at(&self.label));
        }
        self.gpu.check().at(&self.label)?;
        let dtype = self.tensor.dtype;
        Ok(Tensor::new(&self.label, &self.shape, dtype, Storage::Gpu(self.tensor)))
    }
}

struct Job {
    first: usize,
    units: usize,
    slice: Slice,
}

/// Lays the blocks of a staging buffer into a slice's planes. The write into staging and this submit are in order.
fn lay(gpu: &Gpu, dtype: DType, job: &Job, raw: &wgpu::Buffer, w: &wgpu::Buffer) -> Result<()> {
    let number = super::lower::size;
    let call = planes::Planes {
        format: variants::weight_format(dtype, 32),
        raw: Read(super::kernels::Bind::None),
        w: Write(super::kernels::Bind::None),
        params: planes::Params {
            units: number(job.units)?,
            first: number(job.first)?,
            blocks: number(job.slice.scales * 16 / if dtype == DType::Q8_0 { 32 } else { 16 })?,
            scales: number(job.slice.scales * 4)?,
        },
    }
    .call();
    let device = &gpu.0.device;
    let params =
        gpu.buffer("upload", 16, Purpose::Temporary, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
    gpu.send(&params.buffer, 0, &call.params);
    let (layout, _) = gpu.layouts(call.permutation.bindings);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("upload"),
        layout: &layout,
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: params.buffer.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: raw.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 2, resource: w.as_entire_binding() },
        ],
    });
    add(&gpu.0.tally.bind_groups, 1);
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("upload") });
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&gpu.pipeline(call.permutation));
        pass.set_bind_group(0, &group, &[]);
        let [x, y] = fold(job.units.div_ceil(64));
        pass.dispatch_workgroups(x, y, 1);
    }
    add(&gpu.0.tally.dispatches, 1);
    add(&gpu.0.tally.passes, 1);
    gpu.submit(encoder);
    Ok(())
}
