//! From one weight type to another, some rows at a time, by candle's quantisers.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::f16;

use crate::error::{Code, Error, Result};
use crate::tensor::DType;
use crate::tensor::blocks::decode;

/// What a component's matrices become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quant {
    /// What they are in the source, bit for bit (f32 where LoRA was merged or the source is bf16).
    Keep,
    /// A type of weights.
    To(DType),
}

impl Quant {
    /// All words that [`Quant::parse`] knows.
    pub const WORDS: [&'static str; 6] = ["q4_0", "q4_1", "q8_0", "f16", "f32", "keep"];

    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let types = [DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::F16, DType::F32];
        match word {
            "keep" => Some(Self::Keep),
            _ => types.into_iter().find(|t| t.as_str() == word).map(Self::To),
        }
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::To(dtype) => dtype.as_str(),
        }
    }
}

/// `bytes`, whole rows of type `from`, as type `to`. Equal types are copied bit for bit.
pub(crate) fn recode(from: DType, to: DType, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if from == to {
        return Ok(bytes);
    }
    let mut numbers = vec![0f32; bytes.len() / from.block_bytes() * from.block()];
    decode(from, &bytes, &mut numbers);
    drop(bytes);
    let ggml = match to {
        DType::F32 => return Ok(numbers.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => {
            if let Some(v) = numbers.iter().find(|v| v.is_finite() && f16::from_f32(**v).is_infinite()) {
                return Err(Error::new(Code::PackInvalid, "a number is too large for f16").expected("at most 65504", v));
            }
            return Ok(numbers.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect());
        }
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::U32 => return Err(Error::internal("weights are never ids")),
    };
    let n = numbers.len();
    let blocks = QTensor::quantize(&Tensor::from_vec(numbers, n, &Device::Cpu)?, ggml)?;
    Ok(blocks.data()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_close() {
        let row: Vec<f32> = (0..64).map(|i| (i as f32 * 0.37).sin()).collect();
        let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        for (to, tolerance) in [(DType::F16, 5e-4), (DType::Q8_0, 5e-3), (DType::Q4_1, 0.08), (DType::Q4_0, 0.15)] {
            let coded = recode(DType::F32, to, bytes.clone()).unwrap();
            assert_eq!(coded.len(), to.row_bytes(64).unwrap());
            let mut back = vec![0.0; 64];
            decode(to, &coded, &mut back);
            let worst = row.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < tolerance, "{to}: {worst}");
        }
    }
}
