//! What a size of a configuration may be at most; more is no model's, and would only overflow what is computed from it, on
//! machines of 32 bits too. What no tensor of the file bounds is bounded here.

/// Rows of tables, positions, pixels.
pub(super) const TABLE: usize = 1 << 24;
/// Channels.
pub(super) const WIDTH: usize = 1 << 17;
/// Channels of a head.
pub(super) const HEAD: usize = 1 << 13;
/// Layers and heads: a layer's tensors are named before any of them is looked up.
pub(super) const COUNT: usize = 1 << 10;
/// Sides of small windows.
pub(super) const WINDOW: usize = 64;
/// Side of the largest map in cells: 16 times the area of upstream's.
pub(super) const SIDE: usize = 512;
/// Numbers of the rotation table: 128 MiB.
pub(super) const ROPE: usize = 1 << 25;
