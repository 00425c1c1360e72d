//! Image tokens: cells of patches merged, then two linear layers into the language model's width (specification 5).

use super::config::Config;
use super::encoder::state;
use super::weights::Weights;
use crate::error::Result;
use crate::tensor::ops::{self, Act};
use crate::tensor::plan::TapForm;
use crate::tensor::{Plan, Tensor, Value};

/// Records the bridge: hidden states → image tokens, copied into `out [N / k², H]`.
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record(p: &mut Plan, c: &Config, w: &Weights, states: &[Value], out: &Tensor) -> Result<()> {
    p.stage("bridge");
    let side = c.patches();
    let x = ops::merge_cells(p, state(states, c.vis_output_layer), 1, side, side, c.image_token_merge)?;
    p.tap("bridge.merged", x, TapForm::Rows)?;
    let x = ops::linear(p, x, w.linear("img_txt_bridge.0")?.act(Act::Gelu))?;
    let x = ops::linear(p, x, w.linear("img_txt_bridge.2")?)?;
    p.tap("bridge.tokens", x, TapForm::Rows)?;
    ops::copy_into(p, x, out)
}
