//! The region proposer, Deformable DETR: hidden states to boxes and scores (specification 6.1 to 6.5).

use std::f64::consts::TAU;

use super::config::Config;
use super::encoder::state;
use super::weights::{DET, Weights};
use crate::error::Result;
use crate::tensor::ops::{self, Act, Columns, Deformable, Geometry, boxes::sine_divisors};
use crate::tensor::plan::TapForm;
use crate::tensor::{Plan, Tensor, Value};

/// Epsilon of every norm here but those of the levels.
const EPS: f32 = 1e-5;
/// Epsilon of the channel norms of the levels.
const LEVEL_EPS: f32 = 1e-6;

/// What the proposer hands on.
#[derive(Clone, Debug)]
pub struct Proposals {
    /// `[Q, 4]`: cx, cy, w, h, normalised.
    pub boxes: Tensor,
    /// `[Q, 1]`, fused.
    pub scores: Tensor,
}

/// Positions of one level: sine terms of y, then of x, plus the level's embedding. `[height · width, d]`, in f64.
#[must_use]
pub fn positions((height, width): (usize, usize), d: usize, level: &[f32]) -> Vec<f32> {
    let divisors = sine_divisors(d / 2);
    let axis = |n: usize| -> Vec<Vec<f64>> {
        let place = |i: usize| (i as f64 + 0.5) / (n as f64 + 1e-6) * TAU;
        let term = |v: f64, j: usize| if j.is_multiple_of(2) { v.sin() } else { v.cos() };
        (0..n).map(|i| divisors.iter().enumerate().map(|(j, f)| term(place(i) / f, j)).collect()).collect()
    };
    let (ys, xs) = (axis(height), axis(width));
    let mut out = Vec::with_capacity(height * width * d);
    for y in &ys {
        for x in &xs {
            out.extend(y.iter().chain(x).zip(level).map(|(t, l)| (t + f64::from(*l)) as f32));
        }
    }
    out
}

/// Cell centres of all levels, `[T, 2]`.
fn centres(levels: &[usize]) -> Vec<f32> {
    let mut out = Vec::new();
    for side in levels {
        for i in 0..side * side {
            out.extend([i % side, i / side].map(|v| ((v as f64 + 0.5) / *side as f64) as f32));
        }
    }
    out
}

/// First-stage proposals of one level: four logits and a validity (1 or 0) a cell, `[side_y · side_x, 5]`.
#[must_use]
pub fn cells(height: usize, width: usize, level: usize) -> Vec<f32> {
    let side = 0.05 * f64::from(1u32 << level);
    let mut out = Vec::with_capacity(height * width * 5);
    for i in 0..height * width {
        let place = |v: usize, n: usize| (v as f64 + 0.5) / n as f64;
        let numbers = [place(i % width, width), place(i / width, height), side, side];
        let valid = numbers.iter().all(|v| *v > 0.01 && *v < 0.99);
        out.extend(numbers.map(|v| if valid { (v / (1.0 - v)).ln() as f32 } else { 0.0 }));
        out.push(f32::from(u8::from(valid)));
    }
    out
}

/// Records the proposer's input alone: the mean of the last four states (of all where there are fewer), the class row left
/// out. `[N, D]`.
///
/// # Errors
/// `internal` where the states are of different shapes.
pub fn record_input(p: &mut Plan, states: &[Value]) -> Result<Value> {
    p.stage("proposer.input");
    let last: Vec<Value> = (1..=states.len().min(4) as i64).rev().map(|i| state(states, -i)).collect();
    let input = ops::average(p, &last, 1)?;
    p.tap("det.input", input, TapForm::ChannelsFirst)?;
    Ok(input)
}

struct Stage<'a> {
    c: &'a Config,
    w: &'a Weights,
    /// Sides of the levels.
    sides: Vec<usize>,
}

/// Records the proposer; boxes and scores are copied into `out`.
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record(p: &mut Plan, c: &Config, w: &Weights, states: &[Value], out: &Proposals) -> Result<()> {
    let s = Stage { c, w, sides: c.levels() };
    let input = record_input(p, states)?;
    let mut maps = Vec::new();
    for l in 0..s.sides.len() {
        let map = s.level(p, l, input)?;
        p.tap(format!("det.src{l}"), map, TapForm::ChannelsFirst)?;
        maps.push(map);
    }
    let memory = ops::concat_rows(p, &maps)?;
    let memory = s.encode(p, memory)?;
    let (qpos, target, reference) = if c.proposer.two_stage { s.first_stage(p, memory)? } else { s.one_stage(p)? };
    s.decode(p, memory, qpos, target, reference, out)
}

impl Stage<'_> {
    fn geometry(side: usize, kernel: usize, stride: usize, padding: usize) -> Geometry {
        Geometry { batch: 1, height: side, width: side, kernel, stride, padding }
    }

    fn conv(&self, p: &mut Plan, x: Value, stem: &str, geometry: Geometry) -> Result<Value> {
        let (weight, bias) = self.w.pair(stem)?;
        ops::conv2d(p, x, weight, Some(bias), geometry)
    }

    fn norm(&self, p: &mut Plan, x: Value, plus: Option<Value>, stem: &str) -> Result<Value> {
        let (weight, bias) = self.w.pair(stem)?;
        ops::layer_norm(p, x, plus, weight, bias, EPS)
    }

    /// Level `l` of the pyramid, finest first (specification 6.1).
    fn level(&self, p: &mut Plan, l: usize, x: Value) -> Result<Value> {
        let (n, side) = (self.sides.len(), self.c.patches());
        let stem = |j: usize| format!("perceiver.input_proj.{l}.{j}");
        let cln = |p: &mut Plan, j: usize, x: Value, act: Act| {
            let (weight, bias) = self.w.pair(&stem(j))?;
            ops::layer_norm_act(p, x, weight, bias, LEVEL_EPS, act)
        };
        let up = |p: &mut Plan, j: usize, x: Value, side: usize| {
            let (weight, bias) = self.w.pair(&stem(j))?;
            ops::conv_transpose2x2(p, x, weight, bias, side, side, Act::None)
        };
        match if n == 1 { 1 } else { n - 1 - l } {
            0 => {
                let x = self.conv(p, x, &stem(0), Self::geometry(side, 3, 2, 1))?;
                cln(p, 1, x, Act::None)
            }
            1 => {
                let x = ops::linear(p, x, self.w.linear(&stem(0))?)?;
                cln(p, 1, x, Act::None)
            }
            2 => {
                let x = up(p, 0, x, side)?;
                let x = ops::linear(p, x, self.w.linear(&stem(1))?)?;
                let x = cln(p, 2, x, Act::None)?;
                self.conv(p, x, &stem(3), Self::geometry(2 * side, 3, 1, 1))
            }
            _ => {
                let x = up(p, 0, x, side)?;
                let x = cln(p, 1, x, Act::Gelu)?;
                let x = up(p, 3, x, 2 * side)?;
                let x = ops::linear(p, x, self.w.linear(&stem(4))?)?;
                let x = cln(p, 5, x, Act::None)?;
                self.conv(p, x, &stem(6), Self::geometry(4 * side, 3, 1, 1))
            }
        }
    }

    /// Deformable attention with its projections; `x + pos` asks, `memory` answers.
    #[expect(clippy::too_many_arguments, reason = "a recording names all that it binds")]
    fn deformable(
        &self,
        p: &mut Plan,
        stem: &str,
        asking: Value,
        memory: Value,
        reference: Value,
        heads: usize,
        points: usize,
    ) -> Result<Value> {
        let value = ops::linear(p, memory, self.w.linear(&format!("{stem}.value_proj"))?)?;
        let sampling = ops::linear(p, asking, self.w.linear(&format!("{stem}.sampling"))?)?;
        let shape = Deformable {
            heads,
            points,
            levels: self.sides.iter().map(|s| (*s, *s)).collect(),
            weights: ops::Weights::Logits,
        };
        let y = ops::deformable(p, value, sampling, reference, shape)?;
        ops::linear(p, y, self.w.linear(&format!("{stem}.output_proj"))?)
    }

    fn feed_forward(&self, p: &mut Plan, x: Value, stem: &str) -> Result<Value> {
        let y = ops::linear(p, x, self.w.linear(&format!("{stem}fc1"))?.act(Act::Relu))?;
        let y = ops::linear(p, y, self.w.linear(&format!("{stem}fc2"))?.residual(x))?;
        self.norm(p, y, None, &format!("{stem}final_layer_norm"))
    }

    fn encode(&self, p: &mut Plan, mut x: Value) -> Result<Value> {
        let (c, d) = (&self.c.proposer, self.c.proposer.d_model);
        let embed = self.w.host(&format!("{DET}level_embed"))?;
        let pos: Vec<f32> = self
            .sides
            .iter()
            .zip(embed.chunks_exact(d))
            .flat_map(|(side, level)| positions((*side, *side), d, level))
            .collect();
        let rows = pos.len() / d;
        let pos = p.constant("proposer.positions", &[rows, d], &pos)?;
        p.tap("det.pos", pos, TapForm::Rows)?;
        let reference = p.constant("proposer.centres", &[rows, 2], &centres(&self.sides))?;
        for i in 0..c.encoder_layers {
            p.stage(format!("proposer.encoder.{i}"));
            let stem = format!("{DET}encoder.layers.{i}.");
            let asking = ops::add(p, x, pos)?;
            let y = self.deformable(
                p,
                &format!("{stem}self_attn"),
                asking,
                x,
                reference,
                c.encoder_attention_heads,
                c.encoder_n_points,
            )?;
            x = self.norm(p, x, Some(y), &format!("{stem}self_attn_layer_norm"))?;
            x = self.feed_forward(p, x, &stem)?;
            p.tap(format!("det.enc{i}"), x, TapForm::Rows)?;
        }
        Ok(x)
    }

    fn box_head(&self, p: &mut Plan, i: usize, x: Value) -> Result<Value> {
        let layer = |j: usize| self.w.linear(&format!("{DET}bbox_embed.{i}.layers.{j}"));
        let x = ops::linear(p, x, layer(0)?.act(Act::Relu))?;
        let x = ops::linear(p, x, layer(1)?.act(Act::Relu))?;
        ops::linear(p, x, layer(2)?)
    }

    /// One stage: queries are learned, references a function of them alone, which the host computes.
    fn one_stage(&self, p: &mut Plan) -> Result<(Value, Value, Value)> {
        p.stage("proposer.queries");
        let (d, q) = (self.c.proposer.d_model, self.c.proposer.queries());
        let table = self.w.host(&format!("{DET}query_position_embeddings.weight"))?;
        let half = |first: usize| -> Vec<f32> {
            table.chunks_exact(2 * d).flat_map(|r| &r[first..first + d]).copied().collect()
        };
        let (weight, bias) = (
            self.w.host(&format!("{DET}reference_points.weight"))?,
            self.w.host(&format!("{DET}reference_points.bias"))?,
        );
        let pos = half(0);
        let mut reference = Vec::with_capacity(2 * q);
        for row in pos.chunks_exact(d) {
            for i in 0..2 {
                let sum: f64 = row.iter().zip(&weight[i * d..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                reference.push((1.0 / (1.0 + (-(sum + f64::from(bias[i]))).exp())) as f32);
            }
        }
        let reference = p.constant("proposer.reference", &[q, 2], &reference)?;
        p.tap("det.ref", reference, TapForm::Rows)?;
        let qpos = p.constant("proposer.qpos", &[q, d], &pos)?;
        let target = p.constant("proposer.target", &[q, d], &half(d))?;
        Ok((qpos, target, reference))
    }

    /// Two stages: the best cells of the memory become the first references (specification 6.4).
    fn first_stage(&self, p: &mut Plan, memory: Value) -> Result<(Value, Value, Value)> {
        p.stage("proposer.first_stage");
        let (c, d, q) = (&self.c.proposer, self.c.proposer.d_model, self.c.proposer.queries());
        let table: Vec<f32> = self.sides.iter().enumerate().flat_map(|(l, side)| cells(*side, *side, l)).collect();
        let mask: Vec<f32> = table.chunks_exact(5).map(|r| r[4]).collect();
        let rows = mask.len();
        let proposals = p.constant("proposer.cells", &[rows, 5], &table)?;
        let mask = p.constant("proposer.valid", &[rows], &mask)?;
        let x = ops::mask_rows(p, memory, mask)?;
        let x = ops::linear(p, x, self.w.linear(&format!("{DET}enc_output"))?)?;
        let obj = self.norm(p, x, None, &format!("{DET}enc_output_norm"))?;
        p.tap("det.obj", obj, TapForm::Rows)?;
        let score = ops::linear(p, obj, self.w.linear(&format!("{DET}class_embed_enc"))?)?;
        p.tap("det.enc_class", score, TapForm::Rows)?;
        let best = ops::top_k(p, score, q)?;
        p.tap("det.topk", best, TapForm::Rows)?;
        let best = p.given("det.topk").unwrap_or(best);
        let chosen = ops::gather_rows(p, obj, best);
        let delta = self.box_head(p, c.decoder_layers, chosen)?;
        let reference = ops::first_reference(p, delta, proposals, best)?;
        p.tap("det.ref", reference, TapForm::Rows)?;
        let sine = ops::sine_reference(p, reference, d / 2)?;
        let x = ops::linear(p, sine, self.w.linear(&format!("{DET}pos_trans"))?)?;
        let x = self.norm(p, x, None, &format!("{DET}pos_trans_norm"))?;
        let qpos = ops::rows::first_columns(p, x, d);
        p.tap("det.qpos", qpos, TapForm::Rows)?;
        let target = self.w.host(&format!("{DET}query_position_embeddings.weight"))?;
        let target = p.constant("proposer.target", &[q, d], target)?;
        Ok((qpos, target, reference))
    }

    /// The decoder: every layer looks around the initial references (O-4); the heads of the last two shape the boxes.
    fn decode(
        &self,
        p: &mut Plan,
        memory: Value,
        qpos: Value,
        target: Value,
        reference: Value,
        out: &Proposals,
    ) -> Result<()> {
        let (c, d) = (&self.c.proposer, self.c.proposer.d_model);
        let (heads, last) = (c.decoder_attention_heads, c.decoder_layers - 1);
        let (mut x, mut base) = (target, reference);
        for i in 0..=last {
            p.stage(format!("proposer.decoder.{i}"));
            let stem = format!("{DET}decoder.layers.{i}.");
            let asking = ops::add(p, x, qpos)?;
            let qk = ops::linear(p, asking, self.w.linear(&format!("{stem}self_attn.qk_proj"))?)?;
            let v = ops::linear(p, x, self.w.linear(&format!("{stem}self_attn.v_proj"))?)?;
            let (q, k) = (Columns { value: qk, first: 0 }, Columns { value: qk, first: d });
            let y = ops::attention(p, q, k, Columns::all(v), heads, d / heads)?;
            let y = ops::linear(p, y, self.w.linear(&format!("{stem}self_attn.out_proj"))?)?;
            x = self.norm(p, x, Some(y), &format!("{stem}self_attn_layer_norm"))?;
            let asking = ops::add(p, x, qpos)?;
            let y = self.deformable(
                p,
                &format!("{stem}encoder_attn"),
                asking,
                memory,
                reference,
                heads,
                c.decoder_n_points,
            )?;
            x = self.norm(p, x, Some(y), &format!("{stem}encoder_attn_layer_norm"))?;
            x = self.feed_forward(p, x, &stem)?;
            p.tap(format!("det.dec{i}"), x, TapForm::Rows)?;
            if c.with_box_refine && i + 1 == last {
                let delta = self.box_head(p, i, x)?;
                base = ops::refine(p, delta, reference)?;
            }
        }
        p.stage("proposer.heads");
        let delta = self.box_head(p, last, x)?;
        let boxes = ops::refine(p, delta, base)?;
        p.tap("det.boxes", boxes, TapForm::Rows)?;
        let coco = ops::linear(p, x, self.w.linear(&format!("{DET}class_embed_coco.{last}"))?)?;
        p.tap("det.logit_coco", coco, TapForm::Rows)?;
        let sa1b = ops::linear(p, x, self.w.linear(&format!("{DET}class_embed_sa1b.{last}"))?)?;
        p.tap("det.logit_sa1b", sa1b, TapForm::Rows)?;
        let scores = ops::score_fusion(p, coco, sa1b)?;
        p.tap("det.scores", scores, TapForm::Rows)?;
        ops::copy_into(p, boxes, &out.boxes)?;
        ops::copy_into(p, scores, &out.scores)
    }
}
