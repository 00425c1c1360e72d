//! DINOv2, from pixels to hidden states (specification 4). The final layer norm is applied to none of them (O-2).

use super::config::Config;
use super::weights::{VIS, Weights};
use crate::error::Result;
use crate::tensor::ops::{self, Act, Columns, Geometry};
use crate::tensor::plan::TapForm;
use crate::tensor::{Plan, Tensor, Value};

/// Cubic taps at -1, 0, 1, 2 for the fraction `t`, a = -0.75.
fn cubic(t: f64) -> [f64; 4] {
    let a = -0.75;
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Indices and weights of the four taps of place `i` of an axis of `to` resampled from `from`, scale `(to + 0.1) / from`.
fn taps(i: usize, from: usize, to: usize) -> [(usize, f64); 4] {
    let place = (i as f64 + 0.5) * from as f64 / (to as f64 + 0.1) - 0.5;
    let base = place.floor();
    let weights = cubic(place - base);
    std::array::from_fn(|k| {
        let at = (base as i64 + k as i64 - 1).clamp(0, from as i64 - 1);
        (usize::try_from(at).expect("clamped to the table"), weights[k])
    })
}

/// The position table for `side · side` patches: as it is where the sizes agree, else resampled bicubically with the
/// original's slight stretch (O-1), in f64. `table [1 + grid², d]` → `[1 + side², d]`.
#[must_use]
pub fn position_table(table: &[f32], d: usize, side: usize) -> Vec<f32> {
    let grid = (table.len() / d - 1).isqrt();
    if side * side == grid * grid {
        return table.to_vec();
    }
    let rows = &table[d..];
    // columns first, then rows, each tap in f64
    let mut wide = vec![0f64; grid * side * d];
    for y in 0..grid {
        for x in 0..side {
            let out = &mut wide[(y * side + x) * d..][..d];
            for (at, w) in taps(x, grid, side) {
                out.iter_mut().zip(&rows[(y * grid + at) * d..][..d]).for_each(|(o, v)| *o += w * f64::from(*v));
            }
        }
    }
    let mut out = table[..d].to_vec();
    for y in 0..side {
        for x in 0..side {
            let mut sum = vec![0f64; d];
            for (at, w) in taps(y, grid, side) {
                sum.iter_mut().zip(&wide[(at * side + x) * d..][..d]).for_each(|(s, v)| *s += w * v);
            }
            out.extend(sum.iter().map(|v| *v as f32));
        }
    }
    out
}

/// Records the encoder: `pixels [3, S, S]` → hidden states `[1 + N, D]`, the embeddings first, then every block's output.
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record(p: &mut Plan, c: &Config, w: &Weights, pixels: &Tensor) -> Result<Vec<Value>> {
    let (v, d, side) = (&c.vision, c.vision.hidden_size, c.patches());
    p.stage("encoder.embed");
    let pixels = p.resident(pixels);
    let (weight, bias) = w.pair(&format!("{VIS}embeddings.patch_embeddings.projection"))?;
    let geometry = Geometry {
        batch: 1,
        height: c.image_size,
        width: c.image_size,
        kernel: v.patch_size,
        stride: v.patch_size,
        padding: 0,
    };
    let patches = ops::conv2d_pixels(p, pixels, weight, bias, geometry)?;
    p.tap("vis.patch", patches, TapForm::Rows)?;
    let table = position_table(w.host(&format!("{VIS}embeddings.position_embeddings"))?, d, side);
    let shown = p.constant("vis.pos", &[1 + side * side, d], &table)?;
    p.tap("vis.pos", shown, TapForm::Rows)?;
    let mut with_class = table;
    let class = w.host(&format!("{VIS}embeddings.cls_token"))?;
    with_class[..d].iter_mut().zip(class).for_each(|(t, c)| *t += c);
    let with_class = p.constant("encoder.positions", &[1 + side * side, d], &with_class)?;
    let mut x = ops::with_class_row(p, patches, with_class)?;
    p.tap("vis.h0", x, TapForm::Rows)?;
    let mut states = vec![x];
    for i in 0..v.num_hidden_layers {
        p.stage(format!("encoder.{i}"));
        let q = format!("{VIS}encoder.layer.{i}.");
        let scale = |n: u32| w.get(&format!("{q}layer_scale{n}.lambda1"));
        let (weight, bias) = w.pair(&format!("{q}norm1"))?;
        let y = ops::layer_norm(p, x, None, weight, bias, v.layer_norm_eps)?;
        let qkv = ops::linear(p, y, w.linear(&format!("{q}attention.qkv"))?)?;
        let part = |i: usize| Columns { value: qkv, first: i * d };
        let heads = v.num_attention_heads;
        let y = ops::attention(p, part(0), part(1), part(2), heads, d / heads)?;
        x = ops::linear(p, y, w.linear(&format!("{q}attention.output.dense"))?.scale(scale(1)?).residual(x))?;
        let (weight, bias) = w.pair(&format!("{q}norm2"))?;
        let y = ops::layer_norm(p, x, None, weight, bias, v.layer_norm_eps)?;
        let y = ops::linear(p, y, w.linear(&format!("{q}mlp.fc1"))?.act(Act::Gelu))?;
        x = ops::linear(p, y, w.linear(&format!("{q}mlp.fc2"))?.scale(scale(2)?).residual(x))?;
        p.tap(format!("vis.h{}", i + 1), x, TapForm::Rows)?;
        states.push(x);
    }
    Ok(states)
}

/// The state that an index from the end (negative) or the start names.
#[must_use]
pub fn state(states: &[Value], index: i64) -> Value {
    let n = states.len() as i64;
    let at = if index < 0 { n + index } else { index };
    states[usize::try_from(at).expect("the configuration was checked")]
}
