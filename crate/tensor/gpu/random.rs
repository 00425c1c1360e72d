//! Weights that are made on the device, for measuring models whose files are not at hand.

use super::counters::Purpose;
use super::device::Gpu;
use super::layout;
use super::memory::GpuTensor;
use crate::error::{At, Result};
use crate::tensor::blocks::{self, DType};

impl Gpu {
    /// A tensor of noise: a pattern goes up once and is copied on the device until the tensor is full.
    ///
    /// # Errors
    /// `pack-invalid` where blocks would straddle rows, `internal` for ids; `out-of-memory`, `device-lost`, `closed`.
    pub fn random(&self, label: &str, shape: &[usize], dtype: DType) -> Result<GpuTensor> {
        let t = self.allocate(label, shape, dtype, Purpose::Weights)?;
        let raw = blocks::noise(dtype).at(label)?;
        let whole = layout::slices(1, raw.len() / dtype.block_bytes() * dtype.block(), dtype, u64::MAX)?[0];
        let mut laid = vec![0; whole.bytes];
        layout::lay(dtype, &raw, &whole, &mut laid);
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let pattern = self.buffer("pattern", laid.len(), Purpose::Temporary, usage)?;
        self.send(&pattern.buffer, 0, &laid);
        let mut encoder = self.encoder("random");
        // the plane of quants (all there is, where there are no blocks), then that of scales
        let planes = |slice: &layout::Slice| match slice.scales * 16 {
            0 => [(0, slice.bytes), (0, 0)],
            scales => [(0, scales), (scales, slice.bytes - scales)],
        };
        let from = planes(&whole);
        for (slice, held) in &t.parts {
            for ((start, bytes), (first, period)) in planes(slice).into_iter().zip(from) {
                for at in (0..bytes).step_by(period.max(1)) {
                    let count = period.min(bytes - at) as u64;
                    encoder.copy_buffer_to_buffer(
                        &pattern.buffer,
                        first as u64,
                        &held.buffer,
                        (start + at) as u64,
                        count,
                    );
                }
            }
        }
        self.submit(encoder);
        self.check().at(label)?;
        Ok(t)
    }
}
