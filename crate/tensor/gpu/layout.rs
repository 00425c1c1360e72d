//! How a tensor lies in buffers: rows cut into slices that can be bound, blocks of a slice in two planes.

use crate::error::{Code, Error, Result};
use crate::tensor::blocks::DType;

/// Rows of a tensor that lie in one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its first row.
    pub first: usize,
    /// Its rows.
    pub rows: usize,
    /// Bytes of its numbers as files have them.
    pub raw: usize,
    /// Bytes of its buffer: a multiple of 16.
    pub bytes: usize,
    /// Where the plane of scales begins, in vec4 of 32-bit words; 0 where there are no blocks.
    pub scales: usize,
}

/// Quant and scale bytes of a block.
fn planes(dtype: DType) -> Option<(usize, usize)> {
    match dtype {
        DType::Q8_0 => Some((32, 2)),
        DType::Q4_0 => Some((16, 2)),
        DType::Q4_1 => Some((16, 4)),
        DType::F32 | DType::F16 | DType::U32 => None,
    }
}

fn slice(first: usize, rows: usize, cols: usize, dtype: DType) -> Slice {
    let raw = rows * cols / dtype.block() * dtype.block_bytes();
    match planes(dtype) {
        None => Slice { first, rows, raw, bytes: raw.next_multiple_of(16).max(16), scales: 0 },
        Some((quants, scale)) => {
            let blocks = rows * cols / 32;
            let bytes = blocks * quants + (blocks * scale).next_multiple_of(16);
            Slice { first, rows, raw, bytes, scales: blocks * quants / 16 }
        }
    }
}

/// The slices of a tensor where at most `most` bytes can be bound.
///
/// # Errors
/// `pack-invalid` where blocks would straddle rows, `out-of-memory` where not even one row can be bound.
pub fn slices(rows: usize, cols: usize, dtype: DType, most: u64) -> Result<Vec<Slice>> {
    let row = dtype.row_bytes(cols)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if rows == 0 || row == 0 || rows <= most / row && slice(0, rows, cols, dtype).bytes <= most {
        return Ok(vec![slice(0, rows, cols, dtype)]);
    }
    // 16 bytes are left for padding; an even number of rows keeps pairs of blocks whole
    let mut each = rows.min(most.saturating_sub(16) / row);
    if each < rows {
        each &= !1;
    }
    if each == 0 {
        return Err(Error::new(Code::OutOfMemory, "one row is larger than what the adapter can bind")
            .expected(format!("at most {most} bytes"), row));
    }
    Ok((0..rows).step_by(each).map(|first| slice(first, each.min(rows - first), cols, dtype)).collect())
}

/// Lays blocks as files have them into planes; `out` is as long as the slice's buffer.
pub fn lay(dtype: DType, raw: &[u8], slice: &Slice, out: &mut [u8]) {
    let Some((quants, scale)) = planes(dtype) else {
        out[..raw.len()].copy_from_slice(raw);
        return;
    };
    let (first, second) = out.split_at_mut(slice.scales * 16);
    for (i, block) in raw.chunks_exact(quants + scale).enumerate() {
        second[i * scale..(i + 1) * scale].copy_from_slice(&block[..scale]);
        first[i * quants..(i + 1) * quants].copy_from_slice(&block[scale..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cost_no_more_than_in_files() {
        let all = slices(100, 576, DType::Q4_0, 128 << 20).unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].bytes - all[0].raw < 16, "{all:?}");
        assert_eq!(all[0].scales, 100 * 18);
    }

    #[test]
    fn large_tensors_are_cut_by_rows() {
        // the head of a 7B model in q8_0: 139 MB do not fit a default binding
        let all = slices(32_000, 4096, DType::Q8_0, 128 << 20).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all.iter().map(|s| s.rows).sum::<usize>(), 32_000);
        assert!(all.iter().all(|s| s.bytes <= 128 << 20 && s.first % 2 == 0), "{all:?}");
    }

    #[test]
    fn what_just_fits_is_not_cut() {
        // values of plans are bound in one piece as long as they are no larger than a binding
        for (rows, cols) in [(8192, 4096), (65_536, 512)] {
            let all = slices(rows, cols, DType::F32, 128 << 20).unwrap();
            assert_eq!((all.len(), all[0].bytes), (1, 128 << 20));
        }
        assert_eq!(slices(8193, 4096, DType::F32, 128 << 20).unwrap().len(), 2);
        assert_eq!(slices(3, 1, DType::F16, 16).unwrap().len(), 1, "with its padding");
    }

    #[test]
    fn a_row_must_fit() {
        assert_eq!(slices(2, 4096, DType::F32, 4096).unwrap_err().code, Code::OutOfMemory);
    }
}
