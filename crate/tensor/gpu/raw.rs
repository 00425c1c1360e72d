//! Bytes in JavaScript's memory, which go into buffers from there: a model's weights never rest in the wasm heap.

use js_sys::Uint8Array;

use super::adapter::Gpu;
use super::counters::add;
use super::memory::Bytes;

/// A view of JavaScript's bytes.
#[derive(Debug)]
pub struct JsBytes(pub Uint8Array);

impl JsBytes {
    fn part(&self, at: usize, count: usize) -> Uint8Array {
        self.0.subarray(at as u32, (at + count) as u32)
    }
}

impl Bytes for JsBytes {
    fn len(&self) -> usize {
        self.0.length() as usize
    }

    fn copy(&self, at: usize, out: &mut [u8]) {
        self.part(at, out.len()).copy_to(out);
    }

    #[allow(clippy::cast_precision_loss, reason = "buffers are far below 2^53 bytes")]
    fn send(&self, gpu: &Gpu, at: usize, count: usize, buffer: &wgpu::Buffer, offset: u64) {
        let part = self.part(at, count);
        let (Some(queue), Some(to)) = (gpu.0.queue.as_webgpu(), buffer.as_webgpu()) else {
            // Not the browser's own backend: through our memory, then.
            gpu.send(buffer, offset, &part.to_vec());
            return;
        };
        add(&gpu.0.tally.up, count as u64);
        // It throws only for offsets and sizes that are no multiples of four, which units are.
        drop(queue.write_buffer_with_f64_and_buffer_source(to, offset as f64, &part));
    }
}
