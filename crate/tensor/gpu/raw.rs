//! Weights from JavaScript's memory straight into buffers, past the wasm heap: the browser's own `writeBuffer` by wgpu's
//! raw handles. The one file outside `web/` that knows wasm-bindgen's types.

use js_sys::Uint8Array;

use super::counters::add;
use super::device::Gpu;
use super::upload::Bytes;

impl Bytes for Uint8Array {
    fn len(&self) -> usize {
        self.length() as usize
    }

    fn copy(&self, at: usize, out: &mut [u8]) {
        let (at, end) = (at as u32, (at + out.len()) as u32);
        self.subarray(at, end).copy_to(out);
    }

    fn send(&self, gpu: &Gpu, at: usize, count: usize, buffer: &wgpu::Buffer, offset: u64) {
        let (Some(queue), Some(raw)) = (gpu.0.queue.as_webgpu(), buffer.as_webgpu()) else {
            // not the browser's own device: by way of this heap
            let mut bytes = vec![0; count];
            self.copy(at, &mut bytes);
            return gpu.send(buffer, offset, &bytes);
        };
        add(&gpu.0.tally.up, count as u64);
        let sent = queue.write_buffer_with_f64_and_buffer_source_and_f64_and_f64(
            raw,
            offset as f64,
            self,
            at as f64,
            count as f64,
        );
        if let Err(e) = sent {
            gpu.fail(format!("bytes can't be written: {e:?}"));
        }
        gpu.flush(count);
    }
}
