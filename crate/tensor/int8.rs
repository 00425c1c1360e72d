//! Products of quantised weights with activations that are rounded to 8 bits: what `fast` numerics are on the processor.
//!
//! A block of 32 weights is `scale · q + min`, and a block of 32 activations `scale · x`, so that their product is
//! `scales · Σ q·x + min · Σ x` with sums of whole numbers. Weights are read as files have them. Knows nothing of
//! tensors and plans.

use super::blocks::DType;

const BLOCK: usize = 32;

/// A row of activations, rounded.
#[derive(Debug)]
pub(crate) struct Rounded(Vec<Block>);

#[derive(Debug)]
struct Block {
    /// From -127 to 127.
    quants: [i8; BLOCK],
    scale: f32,
    /// `scale · Σ quants`.
    sum: f32,
}

impl Rounded {
    /// Rounds a row; numbers after the last whole block are left out.
    pub(crate) fn of(x: &[f32]) -> Self {
        let block = |x: &[f32; BLOCK]| {
            let most = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
            let quants = x.map(|v| (v * inverse).round() as i8);
            let sum: i32 = quants.iter().map(|q| i32::from(*q)).sum();
            let scale = most / 127.0;
            Block { quants, scale, sum: scale * sum as f32 }
        };
        Self(x.as_chunks().0.iter().map(block).collect())
    }
}

/// Whether [`dot`] reads weights of this type.
pub(crate) fn reads(dtype: DType) -> bool {
    matches!(dtype, DType::Q8_0 | DType::Q4_0 | DType::Q4_1)
}

/// The product of one row of weights with activations: their numbers as `dtype` stores them, and as many.
pub(crate) fn dot(dtype: DType, row: &[u8], x: &Rounded) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if avx2::available() {
        // SAFETY: the processor has what these functions are compiled for.
        return unsafe { avx2::dot(dtype, row, x) };
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return simd128::dot(dtype, row, x);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    portable(dtype, row, x)
}

/// For processors without a version of their own; compilers make vector code of it.
#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
fn portable(dtype: DType, row: &[u8], x: &Rounded) -> f32 {
    let half = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f32();
    let sum = |quants: [i8; BLOCK], x: &Block| -> f32 {
        let mut lanes = [0i32; 16];
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = i32::from(quants[2 * i]) * i32::from(x.quants[2 * i])
                + i32::from(quants[2 * i + 1]) * i32::from(x.quants[2 * i + 1]);
        }
        lanes.iter().sum::<i32>() as f32
    };
    let nibbles = |b: &[u8]| {
        let mut quants = [0; BLOCK];
        for (i, b) in b.iter().enumerate() {
            quants[i] = (b & 15).cast_signed();
            quants[i + BLOCK / 2] = (b >> 4).cast_signed();
        }
        quants
    };
    match dtype {
        DType::Q8_0 => {
            let blocks = row.as_chunks::<34>().0.iter().zip(&x.0);
            blocks.map(|(b, x)| half(b) * x.scale * sum(std::array::from_fn(|i| b[2 + i].cast_signed()), x)).sum()
        }
        DType::Q4_0 => {
            let blocks = row.as_chunks::<18>().0.iter().zip(&x.0);
            blocks.map(|(b, x)| half(b) * (x.scale * sum(nibbles(&b[2..]), x) - 8.0 * x.sum)).sum()
        }
        DType::Q4_1 => {
            let blocks = row.as_chunks::<20>().0.iter().zip(&x.0);
            blocks.map(|(b, x)| half(b) * x.scale * sum(nibbles(&b[4..]), x) + half(&b[2..]) * x.sum).sum()
        }
        DType::F32 | DType::F16 | DType::U32 => unreachable!("see `reads`"),
    }
}

/// The same for x86 processors of the last ten years. The order of the sums differs, and with it their last bits.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256, __m256i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128, _mm_srli_epi16,
        _mm256_abs_epi8, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_sign_epi8, _mm256_storeu_ps,
    };

    use super::{BLOCK, Block, DType, Rounded};

    pub(super) fn available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn dot(dtype: DType, row: &[u8], x: &Rounded) -> f32 {
        let (mut sums, mut rest) = (_mm256_setzero_ps(), 0.0);
        match dtype {
            DType::Q8_0 => {
                for (b, x) in row.as_chunks::<34>().0.iter().zip(&x.0) {
                    let w = bytes(b[2..].first_chunk().expect("32 of 34"));
                    // the first factor has no sign: it goes to the second
                    let products = products(_mm256_abs_epi8(w), _mm256_sign_epi8(quants(x), w));
                    sums = _mm256_fmadd_ps(products, _mm256_set1_ps(half([b[0], b[1]]) * x.scale), sums);
                }
            }
            DType::Q4_0 => {
                for (b, x) in row.as_chunks::<18>().0.iter().zip(&x.0) {
                    let d = half([b[0], b[1]]);
                    let products = products(nibbles(b[2..].first_chunk().expect("16 of 18")), quants(x));
                    sums = _mm256_fmadd_ps(products, _mm256_set1_ps(d * x.scale), sums);
                    rest -= 8.0 * d * x.sum;
                }
            }
            DType::Q4_1 => {
                for (b, x) in row.as_chunks::<20>().0.iter().zip(&x.0) {
                    let products = products(nibbles(b[4..].first_chunk().expect("16 of 20")), quants(x));
                    sums = _mm256_fmadd_ps(products, _mm256_set1_ps(half([b[0], b[1]]) * x.scale), sums);
                    rest += half([b[2], b[3]]) * x.sum;
                }
            }
            DType::F32 | DType::F16 | DType::U32 => unreachable!("see `reads`"),
        }
        let mut lanes = [0f32; 8];
        // SAFETY: `lanes` has room for eight numbers.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
        lanes.iter().sum::<f32>() + rest
    }

    #[target_feature(enable = "f16c")]
    fn half(bytes: [u8; 2]) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes)))))
    }

    #[target_feature(enable = "avx2")]
    fn bytes(b: &[u8; BLOCK]) -> __m256i {
        // SAFETY: there are 32 bytes.
        unsafe { _mm256_loadu_si256(b.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn quants(x: &Block) -> __m256i {
        // SAFETY: there are 32 numbers of a byte.
        unsafe { _mm256_loadu_si256(x.quants.as_ptr().cast()) }
    }

    /// The low halves of 16 bytes, then the high ones.
    #[target_feature(enable = "avx2")]
    fn nibbles(b: &[u8; BLOCK / 2]) -> __m256i {
        // SAFETY: there are 16 bytes.
        let raw: __m128i = unsafe { _mm_loadu_si128(b.as_ptr().cast()) };
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(raw), raw), _mm256_set1_epi8(15))
    }

    /// Products of neighbours, four to a sum. No sum of two leaves 16 bits: 2 · 128 · 127.
    #[target_feature(enable = "avx2")]
    fn products(unsigned: __m256i, signed: __m256i) -> __m256 {
        let pairs = _mm256_maddubs_epi16(unsigned, signed);
        _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// The same for the browser.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use std::arch::wasm32::{
        f32x4_add, f32x4_convert_i32x4, f32x4_extract_lane, f32x4_mul, f32x4_splat, i16x8_extmul_high_i8x16,
        i16x8_extmul_low_i8x16, i32x4_add, i32x4_extadd_pairwise_i16x8, u8x16_shr, u8x16_splat, v128, v128_and,
        v128_load,
    };

    use half::f16;

    use super::{DType, Rounded};

    pub(super) fn dot(dtype: DType, row: &[u8], x: &Rounded) -> f32 {
        let (mut sums, mut rest) = (f32x4_splat(0.0), 0.0);
        let mut add = |quants: [v128; 2], x: &super::Block, scale: f32| {
            let (low, high) = x.quants.split_at(16);
            let all = i32x4_add(products(quants[0], quants_of(low)), products(quants[1], quants_of(high)));
            sums = f32x4_add(sums, f32x4_mul(f32x4_convert_i32x4(all), f32x4_splat(scale * x.scale)));
        };
        match dtype {
            DType::Q8_0 => {
                for (b, x) in row.as_chunks::<34>().0.iter().zip(&x.0) {
                    add([bytes(&b[2..]), bytes(&b[18..])], x, half(b));
                }
            }
            DType::Q4_0 => {
                for (b, x) in row.as_chunks::<18>().0.iter().zip(&x.0) {
                    let d = half(b);
                    add(nibbles(&b[2..]), x, d);
                    rest -= 8.0 * d * x.sum;
                }
            }
            DType::Q4_1 => {
                for (b, x) in row.as_chunks::<20>().0.iter().zip(&x.0) {
                    add(nibbles(&b[4..]), x, half(b));
                    rest += half(&b[2..]) * x.sum;
                }
            }
            DType::F32 | DType::F16 | DType::U32 => unreachable!("see `reads`"),
        }
        let [a, b] = [f32x4_extract_lane::<0>(sums), f32x4_extract_lane::<1>(sums)];
        let [c, d] = [f32x4_extract_lane::<2>(sums), f32x4_extract_lane::<3>(sums)];
        a + b + c + d + rest
    }

    fn half(b: &[u8]) -> f32 {
        f16::from_le_bytes([b[0], b[1]]).to_f32()
    }

    /// The first 16 of some bytes.
    fn bytes(b: &[u8]) -> v128 {
        assert!(b.len() >= 16);
        // SAFETY: there are 16 bytes, and any place is good for such a load.
        unsafe { v128_load(b.as_ptr().cast()) }
    }

    fn quants_of(x: &[i8]) -> v128 {
        bytes(bytemuck::cast_slice(x))
    }

    /// The low halves of 16 bytes, and the high ones.
    fn nibbles(b: &[u8]) -> [v128; 2] {
        let raw = bytes(b);
        [v128_and(raw, u8x16_splat(15)), u8x16_shr(raw, 4)]
    }

    /// Products of 16 numbers, four to a sum. No product leaves 16 bits: 128 · 127.
    fn products(a: v128, b: v128) -> v128 {
        let (low, high) = (i16x8_extmul_low_i8x16(a, b), i16x8_extmul_high_i8x16(a, b));
        i32x4_add(i32x4_extadd_pairwise_i16x8(low), i32x4_extadd_pairwise_i16x8(high))
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::blocks;
    use super::*;

    /// Bytes of every value, with scales that are small numbers.
    fn row(dtype: DType, cols: usize, seed: usize) -> Vec<u8> {
        let size = dtype.block_bytes();
        let mut bytes: Vec<u8> =
            (0..cols / BLOCK * size).map(|i| ((i + seed).wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for (i, b) in bytes.chunks_exact_mut(size).enumerate() {
            let d = f16::from_f32(0.01 * (1 + i % 5) as f32 * if i % 3 == 1 { -1.0 } else { 1.0 });
            b[..2].copy_from_slice(&d.to_le_bytes());
            if dtype == DType::Q4_1 {
                b[2..4].copy_from_slice(&f16::from_f32(-0.07).to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn equals_the_product_of_what_the_bytes_say() {
        for dtype in [DType::Q8_0, DType::Q4_0, DType::Q4_1] {
            for cols in [32, 64, 576, 1536] {
                let x: Vec<f32> = (0..cols).map(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i / 32) as f32)).collect();
                let rounded = Rounded::of(&x);
                let whole: Vec<f64> =
                    (rounded.0.iter()).flat_map(|b| b.quants.map(|q| f64::from(b.scale) * f64::from(q))).collect();
                for (x, y) in x.iter().zip(&whole) {
                    assert!((f64::from(*x) - y).abs() <= f64::from(x.abs().max(cols as f32 / 16.0)) / 200.0);
                }
                let bytes = row(dtype, cols, cols);
                let mut w = vec![0.0; cols];
                blocks::decode(dtype, &bytes, &mut w);
                let exact: f64 = w.iter().zip(&whole).map(|(w, x)| f64::from(*w) * x).sum();
                let size: f64 = w.iter().zip(&whole).map(|(w, x)| (f64::from(*w) * x).abs()).sum();
                for y in [dot(dtype, &bytes, &rounded), portable(dtype, &bytes, &rounded)] {
                    let error = (f64::from(y) - exact).abs();
                    assert!(error < 1e-6 * size, "{dtype} {cols}: {y} instead of {exact}");
                }
            }
        }
    }

    #[test]
    fn the_largest_bytes_do_not_overflow() {
        let x = Rounded::of(&[1.0, -1.0].repeat(16));
        let mut bytes = vec![0x80; 34];
        bytes[..2].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
        assert!(dot(DType::Q8_0, &bytes, &x).abs() < 1e-3, "half of the products are 128 and half -128");
        let x = Rounded::of(&[1.0; 32]);
        assert!((dot(DType::Q8_0, &bytes, &x) + 4096.0).abs() < 0.01);
    }
}
