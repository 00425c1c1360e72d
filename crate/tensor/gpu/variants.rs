//! Which permutation and which tiles: pure functions of types, shapes and what is known of the adapter. No kernel and no
//! operation asks the device.

use super::kernels::{WeightFormat, attention, gemm, norm};
use crate::tensor::blocks::DType;

/// What choices depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The adapter computes on the CPU: barriers and shared memory are dear, straight kernels win.
    pub software: bool,
    /// The most bytes that can be bound at once.
    pub binding: u64,
    /// Bytes of memory that a workgroup may share.
    pub shared: u32,
}

impl Traits {
    /// WebGPU's default limits.
    pub const DEFAULT: Traits = Traits { software: true, binding: 128 << 20, shared: 16 << 10 };
}

/// How rows of `k` numbers of a type are read.
#[must_use]
pub fn weight_format(dtype: DType, k: usize) -> WeightFormat {
    let whole = k.is_multiple_of(4);
    match dtype {
        DType::F16 if whole => WeightFormat::F16,
        DType::F16 => WeightFormat::F16Single,
        DType::Q8_0 => WeightFormat::Q8_0,
        DType::Q4_0 => WeightFormat::Q4_0,
        DType::Q4_1 => WeightFormat::Q4_1,
        DType::F32 | DType::U32 if whole => WeightFormat::F32,
        DType::F32 | DType::U32 => WeightFormat::F32Single,
    }
}

/// Wide tiles that keep every core of a large GPU busy; fewer are better cut smaller.
const MANY: usize = 128;

/// Tile of a product of `rows` by `cols` results, and the rows and columns of a workgroup.
#[must_use]
pub fn gemm_tile(traits: Traits, rows: usize, cols: usize) -> (gemm::Tile, usize, usize) {
    if traits.software {
        (gemm::Tile::Straight, 8, 64)
    } else if traits.shared >= WIDE && rows.div_ceil(128) * cols.div_ceil(128) >= MANY {
        (gemm::Tile::Wide, 128, 128)
    } else {
        (gemm::Tile::Tiled, 64, 64)
    }
}

/// Bytes that the workgroups of wide tiles share: more than every device gives.
pub const WIDE: u32 = 32 << 10;

/// The most bytes of a weight that is decoded aside.
const ASIDE: usize = 8 << 20;

/// Whether a product of so many rows first writes a slice of `len` numbers out as f32. A straight kernel decodes every
/// number once for eight rows; SwiftShader computes no quicker than it decodes.
#[must_use]
pub fn decodes_aside(traits: Traits, format: WeightFormat, rows: usize, len: usize) -> bool {
    let whole = !matches!(format, WeightFormat::F32 | WeightFormat::F32Single | WeightFormat::F16Single);
    traits.software && whole && rows >= 32 && len * 4 <= ASIDE.min(usize::try_from(traits.binding).unwrap_or(ASIDE))
}

/// Threads that share a pair of rows of a matrix times one row (a power of two, at most 64): neighbours should read
/// neighbouring words, and each should have at least two steps to do.
#[must_use]
pub fn matvec_lanes(traits: Traits, format: WeightFormat, k: usize) -> usize {
    if traits.software {
        return 1;
    }
    let steps = k.div_ceil(if format.blocks() { 32 } else { 4 });
    let mut lanes = 1;
    while lanes < 32 && lanes * 4 <= steps {
        lanes *= 2;
    }
    lanes
}

/// Threads a row of a norm.
#[must_use]
pub fn norm_lanes(traits: Traits) -> norm::Lanes {
    if traits.software { norm::Lanes::Lone } else { norm::Lanes::Split }
}

/// The narrowest permutation that holds a head, where there is one. Heads of 256 would take 18 KiB of a tiled workgroup's
/// memory, more than every device gives, and no model of the forms that the engine reads has any.
#[must_use]
pub fn head_width(width: usize) -> Option<attention::Width> {
    match width {
        0..=16 => Some(attention::Width::W16),
        17..=32 => Some(attention::Width::W32),
        33..=64 => Some(attention::Width::W64),
        65..=128 => Some(attention::Width::W128),
        _ => None,
    }
}

/// Tile of attention over many rows, and the query rows of a workgroup.
#[must_use]
pub fn attention_tile(traits: Traits) -> (attention::Tile, usize) {
    if traits.software { (attention::Tile::Straight, 8) } else { (attention::Tile::Tiled, 16) }
}

/// A grid of `n` workgroups within 65535 a dimension.
#[must_use]
pub fn fold(n: usize) -> [u32; 2] {
    const SIDE: usize = 65_535;
    let rows = n.div_ceil(SIDE).max(1);
    let columns = n.div_ceil(rows);
    [u32::try_from(columns).unwrap_or(u32::MAX), u32::try_from(rows).unwrap_or(u32::MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_grids_are_folded() {
        assert_eq!(fold(7), [7, 1]);
        assert_eq!(fold(65_535), [65_535, 1]);
        let [x, y] = fold(1_000_000);
        assert!(x <= 65_535 && u64::from(x) * u64::from(y) >= 1_000_000, "{x} by {y}");
    }

    #[test]
    fn what_is_decoded_aside_pays_and_fits() {
        let aside = |rows, len| decodes_aside(Traits::DEFAULT, WeightFormat::Q8_0, rows, len);
        assert!(aside(257, 1536 * 384) && aside(32, 2 << 20));
        assert!(!aside(31, 1536 * 384), "few rows");
        assert!(!aside(257, (2 << 20) + 4), "more than 8 MiB");
        assert!(!decodes_aside(Traits { binding: 1 << 20, ..Traits::DEFAULT }, WeightFormat::Q8_0, 257, 1536 * 384));
        assert!(!decodes_aside(Traits { software: false, ..Traits::DEFAULT }, WeightFormat::Q8_0, 257, 4096));
        assert!(!decodes_aside(Traits::DEFAULT, WeightFormat::F32, 257, 4096), "nothing to decode");
    }

    #[test]
    fn wide_tiles_are_for_large_products_on_devices_that_hold_them() {
        let large = Traits { software: false, shared: 32 << 10, ..Traits::DEFAULT };
        assert_eq!(gemm_tile(large, 512, 4096).0, gemm::Tile::Wide);
        assert_eq!(gemm_tile(large, 512, 3968).0, gemm::Tile::Tiled, "too few to keep a device busy");
        let plain = Traits { software: false, ..Traits::DEFAULT };
        assert_eq!(gemm_tile(plain, 512, 4096).0, gemm::Tile::Tiled, "default limits");
        assert_eq!(gemm_tile(Traits { software: true, ..large }, 512, 4096).0, gemm::Tile::Straight);
    }

    #[test]
    fn lanes_fit_the_row() {
        let hardware = Traits { software: false, ..Traits::DEFAULT };
        assert_eq!(matvec_lanes(hardware, WeightFormat::Q8_0, 576), 8);
        assert_eq!(matvec_lanes(hardware, WeightFormat::Q4_0, 4096), 32);
        assert_eq!(matvec_lanes(hardware, WeightFormat::Q4_0, 32), 1);
        assert_eq!(matvec_lanes(Traits::DEFAULT, WeightFormat::F32, 4096), 1);
    }

    #[test]
    fn rows_that_are_no_multiple_of_four_are_read_singly() {
        assert_eq!(weight_format(DType::F16, 386), WeightFormat::F16Single);
        assert_eq!(weight_format(DType::F32, 64), WeightFormat::F32);
    }
}
