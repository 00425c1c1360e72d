//! Buffers: tensors in slices, the way in (whole) and the way out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counters::{Purpose, Tally, add};
use super::device::{Gpu, lock};
use super::layout::{self, Slice};
use super::upload::FLIGHT;
use crate::error::{At, Code, Error, Result};
use crate::tensor::blocks::DType;
use crate::tensor::device::{Storage, Tensor};
use crate::tensor::plan::{Look, Then};

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
    pub(super) dtype: DType,
}

const TENSOR: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);

impl Gpu {
    pub(super) fn allocate(&self, label: &str, shape: &[usize], dtype: DType, purpose: Purpose) -> Result<GpuTensor> {
        let cols = shape.last().copied().unwrap_or(1);
        let rows: usize = shape.iter().rev().skip(1).product();
        let slices = layout::slices(rows, cols, dtype, self.0.traits.binding).at(label)?;
        let parts = slices
            .into_iter()
            .map(|s| Ok((s, self.buffer(label, s.bytes, purpose, TENSOR)?)))
            .collect::<Result<_>>()?;
        Ok(GpuTensor { parts, dtype })
    }

    /// A tensor from its bytes as files have them.
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `closed`.
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
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `closed`.
    pub fn zeros(&self, label: &str, shape: &[usize], dtype: DType) -> Result<GpuTensor> {
        // WebGPU clears new buffers
        self.allocate(label, shape, dtype, Purpose::Kept)
    }

    /// Overwrites bytes of a tensor without blocks; offset and length are multiples of 4.
    ///
    /// # Errors
    /// `device-lost`, `closed`.
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

    /// Sends all writes before on their way.
    pub(super) fn submit_nothing(&self) -> wgpu::SubmissionIndex {
        self.send_off(None)
    }

    /// Ends an encoder: its commands are on their way, and with them all writes before.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.send_off(Some(encoder.finish()))
    }

    fn send_off(&self, commands: Option<wgpu::CommandBuffer>) -> wgpu::SubmissionIndex {
        add(&self.0.tally.submits, 1);
        self.0.unsent.store(0, Ordering::Relaxed);
        self.0.queue.submit(commands)
    }

    pub(super) fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }

    /// Copies the first bytes of a tensor over those of another.
    ///
    /// # Errors
    /// `internal` for tensors that are cut differently; `device-lost`, `closed`.
    pub fn copy(&self, from: &Tensor, to: &Tensor, bytes: usize) -> Result<()> {
        let mut encoder = self.encoder("copy");
        encode_copy(&mut encoder, from, to, bytes)?;
        self.submit(encoder);
        self.check()
    }

    /// Reads numbers of tensors without blocks, in one submit and one wait.
    ///
    /// # Errors
    /// `out-of-memory`, `device-lost`, `closed`.
    pub async fn read(&self, looks: &[Look<'_>]) -> Result<Vec<Vec<u8>>> {
        self.settle().await?;
        let mut encoder = self.encoder("read");
        let Some(reading) = self.follow(&mut encoder, Then { copies: &[], looks })? else { return Ok(Vec::new()) };
        self.submit(encoder);
        self.finish(reading).await
    }

    /// Encodes what follows a plan: copies, then what is to be read.
    pub(super) fn follow(&self, encoder: &mut wgpu::CommandEncoder, then: Then<'_>) -> Result<Option<Reading>> {
        self.check()?;
        for (from, to) in then.copies {
            encode_copy(encoder, from, to, from.bytes())?;
        }
        if then.looks.is_empty() {
            return Ok(None);
        }
        let total = then.looks.iter().map(|l| l.count * 4).sum();
        let staging = self.staging(total)?;
        let mut at = 0;
        for look in then.looks {
            // a tensor may lie in several buffers
            let (from, to) = (look.first * 4, (look.first + look.count) * 4);
            let mut before = 0;
            for (slice, held) in &gpu_tensor(look.tensor)?.parts {
                let (first, end) = (from.max(before), to.min(before + slice.raw));
                if first < end {
                    let count = (end - first) as u64;
                    encoder.copy_buffer_to_buffer(&held.buffer, (first - before) as u64, &staging.buffer, at, count);
                    at += count;
                }
                before += slice.raw;
            }
        }
        Ok(Some(Reading { staging, counts: then.looks.iter().map(|l| l.count * 4).collect() }))
    }

    /// Waits for what was to be read.
    pub(super) async fn finish(&self, reading: Reading) -> Result<Vec<Vec<u8>>> {
        let Reading { staging, counts } = reading;
        let total: usize = counts.iter().sum();
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
        let mut out = Vec::with_capacity(counts.len());
        for count in counts {
            out.push(view[at..at + count].to_vec());
            at += count;
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
        // a larger one takes the place of all that were too small
        idle.clear();
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
}

/// What was copied out and is waited for.
#[derive(Debug)]
pub(super) struct Reading {
    staging: Held,
    /// Bytes of every look.
    counts: Vec<usize>,
}

/// Copies bytes between tensors that are cut alike.
fn encode_copy(encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor, bytes: usize) -> Result<()> {
    let (a, b) = (gpu_tensor(from)?, gpu_tensor(to)?);
    let mut at = 0;
    for ((slice, from_part), (other, to_part)) in a.parts.iter().zip(&b.parts) {
        if at >= bytes {
            break;
        }
        let count = (bytes - at).min(slice.raw);
        if count > other.raw || (count < bytes - at && slice.raw != other.raw) {
            return Err(Error::internal("tensors in several buffers can't be copied so").at(to.label()));
        }
        encoder.copy_buffer_to_buffer(&from_part.buffer, 0, &to_part.buffer, 0, count as u64);
        at += count;
    }
    if at < bytes {
        return Err(Error::internal("the copy is longer than its tensors").at(to.label()));
    }
    Ok(())
}

/// The GPU's side of a tensor.
pub(super) fn gpu_tensor(t: &Tensor) -> Result<&GpuTensor> {
    match t.storage() {
        Storage::Gpu(g) => Ok(g),
        Storage::Cpu(_) => Err(Error::internal(format!("{} lives on the CPU", t.label()))),
    }
}
