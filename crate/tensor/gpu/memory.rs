//! Buffers: tensors in slices, the way in (whole or streamed) and the way out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::adapter::{Gpu, lock};
use super::counters::{Purpose, Tally, add};
use super::kernels::{Kernel, Read, Write, planes};
use super::layout::{self, Slice};
use super::variants::{self, fold};
use crate::error::{At, Code, Error, Result};
use crate::tensor::blocks::DType;
use crate::tensor::device::{Storage, Tensor};

/// A buffer that gives its bytes back when it goes, at once and not when a garbage collector finds it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) buffer: wgpu::Buffer,
    pub(super) bytes: u64,
    purpose: Purpose,
    tally: Arc<Tally>,
}

impl Held {
    pub(super) fn new(buffer: wgpu::Buffer, bytes: u64, purpose: Purpose, tally: &Arc<Tally>) -> Self {
        tally.hold(purpose, bytes);
        Self { buffer, bytes, purpose, tally: tally.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tally.release(self.purpose, self.bytes);
        self.buffer.destroy();
    }
}

/// A tensor's buffers.
#[derive(Debug)]
pub struct GpuTensor {
    pub(super) parts: Vec<(Slice, Held)>,
    dtype: DType,
    row_bytes: usize,
}

const TENSOR: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);

/// Bytes of raw blocks that may wait in staging before they are submitted.
const FLIGHT: usize = 8 << 20;

impl Gpu {
    fn allocate(&self, label: &str, shape: &[usize], dtype: DType, purpose: Purpose) -> Result<GpuTensor> {
        let cols = shape.last().copied().unwrap_or(1);
        let rows: usize = shape.iter().rev().skip(1).product();
        let slices = layout::slices(rows, cols, dtype, self.0.traits.binding).at(label)?;
        let parts = slices
            .into_iter()
            .map(|s| Ok((s, self.buffer(label, s.bytes, purpose, TENSOR)?)))
            .collect::<Result<_>>()?;
        Ok(GpuTensor { parts, dtype, row_bytes: dtype.row_bytes(cols)? })
    }

    /// A tensor from its bytes as files have them.
    pub fn upload(&self, label: &str, shape: &[usize], dtype: DType, bytes: &[u8]) -> Result<GpuTensor> {
        let t = self.allocate(label, shape, dtype, Purpose::Weights)?;
        let mut at = 0;
        for (slice, held) in &t.parts {
            let raw = &bytes[at..at + slice.raw];
            at += slice.raw;
            if slice.scales == 0 && raw.len().is_multiple_of(4) {
                self.send(&held.buffer, 0, raw);
            } else {
                let mut out = vec![0; slice.bytes];
                layout::lay(dtype, raw, slice, &mut out);
                self.send(&held.buffer, 0, &out);
            }
        }
        self.check().at(label)?;
        Ok(t)
    }

    /// A tensor of zeros.
    pub fn zeros(&self, label: &str, shape: &[usize], dtype: DType) -> Result<GpuTensor> {
        // WebGPU clears new buffers
        self.allocate(label, shape, dtype, Purpose::Kept)
    }

    /// Overwrites bytes of a tensor without blocks; offset and length are multiples of 4.
    pub fn write(&self, t: &GpuTensor, offset: usize, bytes: &[u8]) -> Result<()> {
        let mut at = 0;
        for (slice, held) in &t.parts {
            let (from, to) = (offset.max(at), (offset + bytes.len()).min(at + slice.raw));
            if from < to {
                self.send(&held.buffer, (from - at) as u64, &bytes[from - offset..to - offset]);
            }
            at += slice.raw;
        }
        self.check()
    }

    pub(super) fn send(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        add(&self.0.tally.up, bytes.len() as u64);
        self.0.queue.write_buffer(buffer, offset, bytes);
        self.flush(bytes.len());
    }

    /// Writes are staged until a submit: without one, many of them pile up.
    pub(super) fn flush(&self, bytes: usize) {
        let unsent = self.0.unsent.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if unsent > FLIGHT as u64 {
            self.submit_nothing();
            self.nudge();
        }
    }

    fn submit_nothing(&self) {
        add(&self.0.tally.submits, 1);
        self.0.unsent.store(0, Ordering::Relaxed);
        self.0.queue.submit([]);
    }

    /// Reads tensors without blocks, in one copy and one wait.
    pub async fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<u8>>> {
        let parts = tensors.iter().map(|t| gpu_tensor(t)).collect::<Result<Vec<_>>>()?;
        let pieces: Vec<_> = parts.iter().flat_map(|t| &t.parts).map(|(s, held)| (held, 0, s.raw)).collect();
        let mut read = self.fetch(&pieces).await?.into_iter();
        Ok(parts.iter().map(|t| read.by_ref().take(t.parts.len()).flatten().collect()).collect())
    }

    /// Reads `count` bytes from byte `first` on of a tensor that lies in one buffer; both are multiples of four.
    pub async fn read_part(&self, tensor: &Tensor, first: usize, count: usize) -> Result<Vec<u8>> {
        let [(slice, held)] = &gpu_tensor(tensor)?.parts[..] else {
            return Err(Error::internal(format!("{} lies in several buffers", tensor.label())));
        };
        if first + count > slice.raw {
            return Err(Error::internal(format!("{} is shorter than what is read", tensor.label())));
        }
        Ok(self.fetch(&[(held, first as u64, count)]).await?.concat())
    }

    /// Bytes of buffers: where they begin, how many.
    async fn fetch(&self, pieces: &[(&Held, u64, usize)]) -> Result<Vec<Vec<u8>>> {
        self.check()?;
        let total: usize = pieces.iter().map(|(_, _, raw)| raw.next_multiple_of(4)).sum();
        let staging = self.staging(total)?;
        let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read") });
        let mut at = 0;
        for (held, first, raw) in pieces {
            let bytes = raw.next_multiple_of(4) as u64;
            encoder.copy_buffer_to_buffer(&held.buffer, *first, &staging.buffer, at, bytes);
            at += bytes;
        }
        add(&self.0.tally.submits, 1);
        self.0.queue.submit([encoder.finish()]);
        let (tx, rx) = flume::bounded(1);
        staging.buffer.map_async(wgpu::MapMode::Read, 0..total as u64, move |result| {
            // whoever waited may be gone
            let _ = tx.send(result);
        });
        self.block();
        let mapped = rx.recv_async().await;
        self.delay();
        self.nudge();
        self.check()?;
        if !matches!(mapped, Ok(Ok(()))) {
            return Err(Error::new(Code::DeviceLost, "the GPU gave no data back"));
        }
        add(&self.0.tally.readbacks, 1);
        add(&self.0.tally.down, total as u64);
        let view = staging
            .buffer
            .get_mapped_range(0..total as u64)
            .map_err(|e| Error::internal(format!("mapped data can't be read: {e}")))?;
        let mut at = 0;
        let mut out = Vec::with_capacity(pieces.len());
        for (_, _, raw) in pieces {
            out.push(view[at..at + raw].to_vec());
            at += raw.next_multiple_of(4);
        }
        drop(view);
        staging.buffer.unmap();
        lock(&self.0.staging).push(staging);
        Ok(out)
    }

    /// A staging buffer of at least `bytes`: one that was used before, or a new one.
    fn staging(&self, bytes: usize) -> Result<Held> {
        let mut idle = lock(&self.0.staging);
        if let Some(i) = idle.iter().position(|h| h.bytes >= bytes as u64) {
            return Ok(idle.swap_remove(i));
        }
        // a larger one takes the smaller one's place
        idle.pop();
        drop(idle);
        let size = bytes.next_power_of_two().max(4096);
        self.buffer("staging", size, Purpose::Temporary, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn delay(&self) {
        let ms = self.0.options.map_latency_ms;
        if ms > 0 {
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
    }

    #[cfg(target_arch = "wasm32")]
    #[expect(clippy::unused_self, reason = "the native twin needs it")]
    fn delay(&self) {}

    /// Begins a tensor whose bytes come piece by piece.
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

/// The GPU's side of a tensor.
pub(super) fn gpu_tensor(t: &Tensor) -> Result<&GpuTensor> {
    match t.storage() {
        Storage::Gpu(g) => Ok(g),
        Storage::Cpu(_) => Err(Error::internal(format!("{} lives on the CPU", t.label()))),
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
                self.gpu.submit_nothing();
                self.gpu.done().await;
                self.gpu.check().at(&self.label)?;
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
    add(&gpu.0.tally.submits, 1);
    gpu.0.queue.submit([encoder.finish()]);
    Ok(())
}

impl GpuTensor {
    /// Bytes of a row as files have it.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}
