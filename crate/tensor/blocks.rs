//! Element types as files have them (GGUF's block formats) and how a row of blocks is read.
//!
//! A block never straddles rows: a row's length is a multiple of the block's.

use half::f16;

use crate::error::{Code, Error, Result};

/// How the numbers of a tensor are stored. Block formats are GGUF's, 32 numbers a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// f16 scale, 32 signed bytes: 34 bytes a block, value `q * d`.
    Q8_0,
    /// f16 scale, 32 nibbles: 18 bytes a block, value `(q - 8) * d`; byte j holds elements j (low) and j + 16 (high).
    Q4_0,
    /// f16 scale, f16 minimum, 32 nibbles: 20 bytes a block, value `q * d + m`.
    Q4_1,
    /// 32-bit unsigned integers (ids, state); never a weight.
    U32,
}

impl DType {
    /// Numbers in a block (1 where there are no blocks).
    #[must_use]
    pub fn block(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::U32 => 1,
            DType::Q8_0 | DType::Q4_0 | DType::Q4_1 => 32,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 => 2,
            DType::Q8_0 => 34,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
        }
    }

    /// Bytes of a row of `cols` numbers, or an error where blocks would straddle rows.
    ///
    /// # Errors
    /// `pack-invalid` where blocks would straddle rows.
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        if !cols.is_multiple_of(self.block()) {
            return Err(Error::new(Code::PackInvalid, format!("a row of {self} can't straddle blocks"))
                .expected(format!("a multiple of {}", self.block()), cols));
        }
        (cols / self.block())
            .checked_mul(self.block_bytes())
            .ok_or_else(|| Error::new(Code::PackInvalid, "row size overflows"))
    }

    /// The name as commands and packs spell it: `q4_0`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::U32 => "u32",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Reads one row (or any run of whole blocks) of `dtype` from little-endian `bytes` into `out`.
///
/// # Panics
/// Panics if `bytes` is not exactly as long as `out.len()` numbers need, or `dtype` is [`DType::U32`].
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() / dtype.block() * dtype.block_bytes(), "a run of whole blocks");
    match dtype {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f16::from_le_bytes(*b).to_f32();
            }
        }
        DType::Q8_0 => {
            for (o, b) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let d = half_at(b, 0);
                for (o, q) in o.iter_mut().zip(&b[2..]) {
                    *o = f32::from(q.cast_signed()) * d;
                }
            }
        }
        DType::Q4_0 => {
            for (o, b) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
                let d = half_at(b, 0);
                for (j, q) in b[2..].iter().enumerate() {
                    o[j] = f32::from((q & 15).cast_signed() - 8) * d;
                    o[j + 16] = f32::from((q >> 4).cast_signed() - 8) * d;
                }
            }
        }
        DType::Q4_1 => {
            for (o, b) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<20>().0) {
                let (d, m) = (half_at(b, 0), half_at(b, 2));
                for (j, q) in b[4..].iter().enumerate() {
                    o[j] = f32::from(q & 15) * d + m;
                    o[j + 16] = f32::from(q >> 4) * d + m;
                }
            }
        }
        DType::U32 => panic!("u32 tensors hold ids, not numbers"),
    }
}

/// Numbers of the pattern that [`noise`] gives.
const NOISE: usize = 1 << 15;

/// A pattern of small numbers of a weight type, as files have it, the same at every call: between -1/16 and 1/16.
///
/// # Errors
/// Ids are no weights.
pub fn noise(dtype: DType) -> Result<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bits = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let half = |v: f32| f16::from_f32(v).to_le_bytes();
    let (quants, scales) = match dtype {
        DType::F32 => return Ok((0..NOISE).flat_map(|_| unit(bits()).to_le_bytes()).collect()),
        DType::F16 => return Ok((0..NOISE).flat_map(|_| half(unit(bits()))).collect()),
        DType::Q8_0 => (32, half(1.0 / 2048.0).to_vec()),
        DType::Q4_0 => (16, half(1.0 / 128.0).to_vec()),
        DType::Q4_1 => (16, [half(1.0 / 128.0), half(-1.0 / 16.0)].concat()),
        DType::U32 => return Err(Error::internal("ids are no weights")),
    };
    let block = |_| scales.iter().copied().chain((0..quants).map(|_| bits() as u8)).collect::<Vec<u8>>();
    Ok((0..NOISE / 32).flat_map(block).collect())
}

/// A number between -1/16 and 1/16.
fn unit(bits: u32) -> f32 {
    (f64::from(bits) / f64::from(u32::MAX) - 0.5) as f32 / 8.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q4_0_low_nibbles_come_first() {
        let mut bytes = vec![0u8; 18];
        bytes[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        bytes[2] = 0xF1;
        let mut out = [0f32; 32];
        decode(DType::Q4_0, &bytes, &mut out);
        assert_eq!((out[0], out[16], out[1]), (-3.5, 3.5, -4.0));
    }

    #[test]
    fn rows_can_not_straddle_blocks() {
        assert!(DType::Q8_0.row_bytes(386).is_err(), "386 is not a multiple of 32");
        assert_eq!(DType::Q4_1.row_bytes(64).unwrap(), 40);
    }
}
