//! The region encoder (specification 7): fused maps, which depend on the photo only, and one token a region.

use super::config::{BoxFormat, Config};
use super::encoder::state;
use super::select::corners;
use super::weights::Weights;
use crate::error::Result;
use crate::tensor::ops::{self, Act, Geometry};
use crate::tensor::plan::TapForm;
use crate::tensor::{Plan, Tensor, Value};

/// Epsilon of every norm here.
const EPS: f32 = 1e-5;
/// Boxes are scaled by this number whatever the image size is (O-14).
pub const CANVAS: f32 = 448.0;

/// Height (= width) of every fused map.
#[must_use]
pub fn sides(c: &Config) -> Vec<usize> {
    c.region.level_scales.iter().map(|s| s * c.patches()).collect()
}

/// Records the fusion of the last states into maps, copied into `out` (`[side², E]` each).
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record_maps(p: &mut Plan, c: &Config, w: &Weights, states: &[Value], out: &[Tensor]) -> Result<()> {
    let sides = sides(c);
    let n = sides.len();
    let from = (c.patches(), c.patches());
    let mut maps = Vec::new();
    for (l, side) in sides.iter().enumerate() {
        p.stage(format!("region_encoder.input.{l}"));
        let x = state(states, l as i64 - n as i64);
        let x = ops::with_coordinates(p, x, 1, from, (*side, *side))?;
        let x = ops::linear(p, x, w.linear(&format!("region_encoder.mlvl_fuse.input_conv.{l}"))?)?;
        p.tap(format!("reg.in{l}"), x, TapForm::ChannelsFirst)?;
        maps.push(x);
    }
    for k in 0..c.region.num_fuse {
        p.stage(format!("region_encoder.fuse.{k}"));
        let stem = format!("region_encoder.mlvl_fuse.fuse_convs.{k}.");
        let mut next = Vec::new();
        for (l, side) in sides.iter().enumerate() {
            let (up, down) = ((l + 1).min(n - 1), l.saturating_sub(1));
            let size = |l: usize| (sides[l], sides[l]);
            let x = ops::exchange(p, maps[l], maps[up], maps[down], [size(l), size(up), size(down)])?;
            let geometry = Geometry { batch: 1, height: *side, width: *side, kernel: 3, stride: 1, padding: 1 };
            let x = ops::conv2d(p, x, w.get(&format!("{stem}conv.weight"))?, None, geometry)?;
            let (weight, bias) = w.pair(&format!("{stem}gn"))?;
            next.push(ops::group_norm_relu(p, x, weight, bias, c.region.num_groups, EPS)?);
        }
        maps = next;
    }
    for (l, (map, out)) in maps.iter().zip(out).enumerate() {
        p.tap(format!("reg.fused{l}"), *map, TapForm::ChannelsFirst)?;
        ops::copy_into(p, *map, out)?;
    }
    Ok(())
}

/// The regions' boxes as RoIAlign reads them, on the canvas (O-13, O-14).
#[must_use]
pub fn rois(c: &Config, boxes: &[[f32; 4]]) -> Vec<[f32; 4]> {
    boxes
        .iter()
        .map(|b| if c.region.box_format == BoxFormat::CxCyWh { *b } else { corners(b) })
        .map(|b| b.map(|v| v * CANVAS))
        .collect()
}

/// Records the tokens of `boxes [R, 4]` (cx, cy, w, h) with their `rois [R, 4]` → copied into `out [R, H]`.
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record_tokens(
    p: &mut Plan,
    c: &Config,
    w: &Weights,
    maps: &[Tensor],
    boxes: &Tensor,
    rois: &Tensor,
    out: &Tensor,
) -> Result<()> {
    p.stage("region_encoder.tokens");
    let root = "region_encoder.roi_align.";
    let linear = |stem: &str| w.linear(&format!("{root}{stem}"));
    let (boxes, rois) = (p.resident(boxes), p.resident(rois));
    let regions = p.rows(boxes);
    let x = ops::linear(p, boxes, linear("pos_embedd.0")?)?;
    let (weight, bias) = w.pair(&format!("{root}pos_embedd.2"))?;
    let x = ops::relu_layer_norm(p, x, weight, bias, EPS)?;
    let x = ops::linear(p, x, linear("pos_embedd.3")?)?;
    let (weight, bias) = w.pair(&format!("{root}pos_embedd.5"))?;
    let pos = ops::relu_layer_norm(p, x, weight, bias, EPS)?;
    p.tap("reg.pos", pos, TapForm::Rows)?;
    let size = c.region.roi_size;
    let (mut cut, mut weights, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for (l, (map, side)) in maps.iter().zip(sides(c)).enumerate() {
        let map = p.resident(map);
        let scale = (1.0 / c.region.featmap_strides[l]) as f32;
        let x = ops::roi_align(p, map, rois, (side, side), scale, size)?;
        p.tap(format!("reg.roi{l}"), x, TapForm::BatchChannelsFirst { batch: regions })?;
        let (weight, bias) = w.pair(&format!("{root}pconvs.{l}"))?;
        cut.push(x);
        weights.push(weight);
        biases.push(bias);
    }
    let geometry = Geometry { batch: regions, height: size, width: size, kernel: 3, stride: 1, padding: 1 };
    let x = ops::conv2d_sum(p, &cut, &weights, &biases, geometry, Act::Relu)?;
    let x = ops::rows_to_columns(p, x, regions)?;
    let flat = ops::linear(p, x, linear("flatten_linear")?)?;
    p.tap("reg.flat", flat, TapForm::Rows)?;
    let x = ops::add(p, flat, pos)?;
    let x = ops::linear(p, x, linear("updims")?)?;
    p.tap("reg.tokens", x, TapForm::Rows)?;
    ops::copy_into(p, x, out)
}
