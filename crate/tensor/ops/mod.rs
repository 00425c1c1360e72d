//! One file an operation: its shapes checked, its CPU twin and its GPU dispatches side by side.
//!
//! A function of this module records one operation on a [`Plan`](super::Plan) and returns the value it makes. Rows are
//! tokens, queries or pixels; maps are `[height * width, channels]`, so that a 1x1 convolution is a linear layer and a
//! channel norm a row norm. No operation may know a stage of the model.

pub mod act;
pub mod argmax;
pub mod attention;
pub mod boxes;
pub mod conv;
pub mod copy;
pub mod deformable;
pub mod embed;
pub mod gate_up;
pub mod linear;
pub mod maps;
pub mod norm;
pub mod qkv;
pub mod roi_align;
pub mod rows;
pub mod top_k;

pub use act::Act;
pub use argmax::argmax;
pub use attention::{Cache, Columns, attention, cached_attention};
pub use boxes::{first_reference, refine, score_fusion, sine_reference};
pub use conv::{Geometry, conv_transpose2x2, conv2d, conv2d_pixels, conv2d_sum};
pub use copy::{concat_rows, copy_into};
pub use deformable::{Deformable, Weights, deformable};
pub use embed::{Tables, embed};
pub use gate_up::gate_up;
pub use linear::{Linear, linear, linear_into};
pub use maps::{exchange, merge_cells, with_coordinates};
pub use norm::{group_norm_relu, layer_norm, layer_norm_act, relu_layer_norm, rms_norm};
pub use qkv::{Projection, qkv};
pub use roi_align::roi_align;
pub use rows::{add, average, gather_rows, last_row, mask_rows, rows_to_columns, with_class_row};
pub use top_k::top_k;

use super::plan::{Plan, Value};
use crate::error::{Error, Result};

/// Fails unless a value has the shape that an operation needs.
pub(crate) fn want(p: &Plan, v: Value, shape: &[usize], what: &str) -> Result<()> {
    if p.shape(v) == shape {
        return Ok(());
    }
    Err(Error::internal(format!("{what} has the wrong shape"))
        .expected(format!("{shape:?}"), format!("{:?}", p.shape(v))))
}

/// Fails unless a size is what an operation needs.
pub(crate) fn want_size(got: usize, expected: usize, what: &str) -> Result<()> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::internal(format!("{what} has the wrong size")).expected(expected, got))
    }
}
