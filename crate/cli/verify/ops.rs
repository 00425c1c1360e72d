//! The folder of single operations: each is recorded as a small plan and run on the device; what the host computes is in
//! `host_ops`.

use serde_json::{Value, json};

use super::Report;
use super::golden::{Numbers, tensors};
use crate::error::{At, Code, Error, Result};
use crate::tensor::ops::{self, Act, Cache, Columns, Deformable, Geometry, Linear, Projection, Tables, Weights};
use crate::tensor::plan::Run;
use crate::tensor::{DType, Device, Plan, Tensor, Value as Node};

/// The operation at hand: its inputs by their short names, and the device.
pub(super) struct Op<'a> {
    device: &'a Device,
    pub(super) case: &'a Value,
    inputs: std::collections::BTreeMap<String, Numbers>,
}

pub(super) fn run(report: &mut Report<'_>, device: &Device) -> Result<()> {
    let all = tensors(&report.golden.dir.join("inputs.safetensors"))?;
    let cases = report.golden.cases["cases"].clone();
    for case in cases.as_array().into_iter().flatten() {
        let id = case["id"].as_str().unwrap_or_default();
        let mut inputs = std::collections::BTreeMap::new();
        for (short, name) in case["inputs"].as_object().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            let numbers =
                all.get(name).ok_or_else(|| Error::new(Code::PackInvalid, "the input is missing").at(name))?;
            inputs.insert(short.clone(), numbers.clone());
        }
        let op = Op { device, case, inputs };
        pollster::block_on(op.run(report)).at(id)?;
    }
    Ok(())
}

fn small(v: &Value) -> usize {
    usize::try_from(v.as_u64().unwrap_or(0)).unwrap_or(0)
}

/// `[c, n]` to `[n, c]`.
fn turned(x: &[f32], rows: usize) -> Vec<f32> {
    let cols = x.len() / rows;
    (0..cols).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| x[r * cols + c]).collect()
}

/// Rotation pairs of the goldens (i, i + d/2) as neighbours, and back.
fn to_neighbours(row: &[f32]) -> Vec<f32> {
    let half = row.len() / 2;
    (0..row.len()).map(|i| row[i % 2 * half + i / 2]).collect()
}

fn from_neighbours(row: &[f32]) -> Vec<f32> {
    let half = row.len() / 2;
    (0..row.len()).map(|i| row[i % half * 2 + i / half]).collect()
}

impl Op<'_> {
    pub(super) fn input(&self, name: &str) -> Result<&Numbers> {
        self.inputs.get(name).ok_or_else(|| Error::new(Code::PackInvalid, "the operation has no such input").at(name))
    }

    pub(super) fn f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.input(name)?.to_f32())
    }

    pub(super) fn attr(&self, name: &str) -> &Value {
        &self.case["attrs"][name]
    }

    pub(super) fn size(&self, name: &str) -> usize {
        small(self.attr(name))
    }

    pub(super) fn number(&self, name: &str) -> f32 {
        self.attr(name).as_f64().unwrap_or(0.0) as f32
    }

    fn tensor(&self, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        self.device.tensor_f32("verify.input", shape, values)
    }

    /// An input as a matrix `[first axis, the rest]`.
    fn matrix(&self, name: &str) -> Result<Tensor> {
        let n = self.input(name)?;
        let rows = n.shape[0];
        self.tensor(&[rows, n.values.len() / rows], &n.to_f32())
    }

    fn vector(&self, name: &str) -> Result<Tensor> {
        let values = self.f32(name)?;
        self.tensor(&[values.len()], &values)
    }

    /// A map `[c, h, w]` as `[h · w, c]`, with its height and width.
    fn map(&self, name: &str) -> Result<(Tensor, usize, usize)> {
        let n = self.input(name)?;
        let [c, h, w] = n.shape[..] else { return Err(Error::internal("a map has three axes")) };
        Ok((self.tensor(&[h * w, c], &turned(&n.to_f32(), c))?, h, w))
    }

    fn plan(&self) -> Plan {
        Plan::new(self.device, false)
    }

    /// Runs a plan and reads one of its values.
    async fn value(&self, mut p: Plan, v: Node) -> Result<Vec<f32>> {
        let out = self.device.zeros("verify.output", p.shape(v), DType::F32)?;
        ops::copy_into(&mut p, v, &out)?;
        p.compile()?.run(&Run::default()).await?;
        Ok(self.device.read_f32(&[&out]).await?.remove(0))
    }

    /// The same for a map, shown channels first.
    async fn map_value(&self, p: Plan, v: Node) -> Result<Vec<f32>> {
        let pixels = p.rows(v);
        Ok(turned(&self.value(p, v).await?, pixels))
    }

    pub(super) fn give(&self, report: &mut Report<'_>, output: &str, values: &[f32], host: bool) -> Result<()> {
        let name = self.case["outputs"][output].as_str().unwrap_or_default();
        report.tensor(name, &Numbers::f32(&[values.len()], values), host)
    }

    async fn run(&self, report: &mut Report<'_>) -> Result<()> {
        match self.case["op"].as_str().unwrap_or_default() {
            "resize_bicubic_u8"
            | "normalise"
            | "position_table"
            | "sine_position"
            | "proposals"
            | "corners"
            | "iou"
            | "inverse_sigmoid"
            | "deformable_locations"
            | "nms"
            | "seeded_order"
            | "expand_ids" => self.host(report),
            "top_k" | "argmax" => self.discrete(report).await,
            "level_exchange" => self.exchange(report).await,
            "attention" => {
                let y = self.attention().await?;
                self.give(report, "y", &y, false)
            }
            "rope" => {
                let y = self.rope().await?;
                self.give(report, "y", &y, false)
            }
            other => {
                let y = self.device_op(other).await?;
                self.give(report, "y", &y, false)
            }
        }
    }

    async fn device_op(&self, op: &str) -> Result<Vec<f32>> {
        let mut p = self.plan();
        match op {
            "layer_norm" | "rms_norm" => {
                let x = p.resident(&self.matrix("x")?);
                let w = self.vector("w")?;
                let y = if op == "rms_norm" {
                    ops::rms_norm(&mut p, x, &w, self.number("eps"))?
                } else {
                    ops::layer_norm(&mut p, x, None, &w, &self.vector("b")?, self.number("eps"))?
                };
                self.value(p, y).await
            }
            "linear" => {
                let x = p.resident(&self.matrix("x")?);
                let bias = self.inputs.contains_key("b").then(|| self.vector("b")).transpose()?;
                let y = ops::linear(&mut p, x, Linear::new(&self.matrix("w")?, bias.as_ref()))?;
                self.value(p, y).await
            }
            "gelu" | "silu" => {
                // an epilogue: behind a product with one
                let values = self.f32("x")?;
                let x = p.resident(&self.tensor(&[values.len(), 1], &values)?);
                let act = if op == "gelu" { Act::Gelu } else { Act::Silu };
                let y = ops::linear(&mut p, x, Linear::new(&self.tensor(&[1, 1], &[1.0])?, None).act(act))?;
                self.value(p, y).await
            }
            "swiglu" => {
                let x = p.resident(&self.matrix("x")?);
                let (gate, up) = (self.input("gate")?, self.f32("up")?);
                let both = [gate.to_f32(), up].concat();
                let both = self.tensor(&[2 * gate.shape[0], gate.shape[1]], &both)?;
                let y = ops::gate_up(&mut p, x, None, &both)?;
                let y = ops::linear(&mut p, y, Linear::new(&self.matrix("down")?, None))?;
                self.value(p, y).await
            }
            "patch_embed" => {
                let n = self.input("x")?;
                let (kernel, height, width) = (self.size("patch"), n.shape[1], n.shape[2]);
                let x = p.resident(&self.tensor(&n.shape, &n.to_f32())?);
                let geometry = Geometry { batch: 1, height, width, kernel, stride: kernel, padding: 0 };
                let y = ops::conv2d_pixels(&mut p, x, &self.matrix("w")?, &self.vector("b")?, geometry)?;
                self.value(p, y).await
            }
            "conv2d" => {
                let (x, height, width) = self.map("x")?;
                let x = p.resident(&x);
                let kernel = self.input("w")?.shape[2];
                let (stride, padding) = (self.size("stride"), self.size("padding"));
                let geometry = Geometry { batch: 1, height, width, kernel, stride, padding };
                let bias = self.inputs.contains_key("b").then(|| self.vector("b")).transpose()?;
                let y = ops::conv2d(&mut p, x, &self.matrix("w")?, bias.as_ref(), geometry)?;
                self.map_value(p, y).await
            }
            "conv_transpose2d" => {
                let (x, h, w) = self.map("x")?;
                let x = p.resident(&x);
                let y = ops::conv_transpose2x2(&mut p, x, &self.matrix("w")?, &self.vector("b")?, h, w, Act::None)?;
                self.map_value(p, y).await
            }
            "channel_layer_norm" => {
                let (x, ..) = self.map("x")?;
                let x = p.resident(&x);
                let y = ops::layer_norm(&mut p, x, None, &self.vector("w")?, &self.vector("b")?, self.number("eps"))?;
                self.map_value(p, y).await
            }
            "group_norm" => {
                let (x, ..) = self.map("x")?;
                let x = p.resident(&x);
                let (w, b) = (self.vector("w")?, self.vector("b")?);
                let y = ops::norm::group_norm(&mut p, x, &w, &b, self.size("groups"), self.number("eps"), false)?;
                self.map_value(p, y).await
            }
            "bilinear_corners" => {
                let (x, h, w) = self.map("x")?;
                let x = p.resident(&x);
                let y = ops::maps::resize(&mut p, x, 0, (h, w), (self.size("h"), self.size("w")), false)?;
                self.map_value(p, y).await
            }
            "deformable_sample" => {
                let levels: Vec<(usize, usize)> =
                    serde_json::from_value(self.attr("shapes").clone()).unwrap_or_default();
                let (loc, weight) = (self.input("loc")?, self.f32("weight")?);
                let [queries, heads, _, points, _] = loc.shape[..] else {
                    return Err(Error::internal("loc has five axes"));
                };
                // reference 0 and offsets in pixels of their level: the places themselves
                let offsets: Vec<f32> = loc
                    .to_f32()
                    .iter()
                    .enumerate()
                    .map(|(i, v)| {
                        let (h, w) = levels[i / 2 / points % levels.len()];
                        v * if i % 2 == 0 { w } else { h } as f32
                    })
                    .collect();
                let samples = heads * levels.len() * points;
                let rows = offsets.chunks_exact(2 * samples).zip(weight.chunks_exact(samples));
                let projection: Vec<f32> = rows.flat_map(|(o, w)| o.iter().chain(w).copied()).collect();
                let projection = p.resident(&self.tensor(&[queries, 3 * samples], &projection)?);
                let reference = p.resident(&self.tensor(&[queries, 2], &vec![0.0; 2 * queries])?);
                let value = p.resident(&self.matrix("value")?);
                let shape = Deformable { heads, points, levels, weights: Weights::Given };
                let y = ops::deformable(&mut p, value, projection, reference, shape)?;
                self.value(p, y).await
            }
            "proposal_sine" => {
                let reference = p.resident(&self.matrix("ref")?);
                let y = ops::sine_reference(&mut p, reference, self.size("n"))?;
                self.value(p, y).await
            }
            "roi_align" => {
                let (x, h, w) = self.map("x")?;
                let x = p.resident(&x);
                let rois = p.resident(&self.matrix("rois")?);
                let regions = p.rows(rois);
                let y = ops::roi_align(&mut p, x, rois, (h, w), self.number("scale"), self.size("size"))?;
                let y = ops::rows_to_columns(&mut p, y, regions)?;
                self.value(p, y).await
            }
            "image_token_merge" => {
                let n = self.input("x")?;
                let [h, w, c] = n.shape[..] else { return Err(Error::internal("a map has three axes")) };
                let x = p.resident(&self.tensor(&[h * w, c], &n.to_f32())?);
                let y = ops::merge_cells(&mut p, x, 0, h, w, self.size("k"))?;
                self.value(p, y).await
            }
            "score_fusion" => {
                let column = |name: &str| self.f32(name).and_then(|v| self.tensor(&[v.len(), 1], &v));
                let (coco, sa1b) = (p.resident(&column("coco")?), p.resident(&column("sa1b")?));
                let y = ops::score_fusion(&mut p, coco, sa1b)?;
                self.value(p, y).await
            }
            "dequantise" => {
                let dtype = match self.attr("type").as_str() {
                    Some("q8_0") => DType::Q8_0,
                    Some("q4_0") => DType::Q4_0,
                    Some("q4_1") => DType::Q4_1,
                    other => return Err(Error::new(Code::PackInvalid, "unknown block type").at(format!("{other:?}"))),
                };
                let bytes: Vec<u8> = self.input("blocks")?.values.iter().map(|v| *v as u8).collect();
                let rows = bytes.len() / dtype.block_bytes();
                let tokens = self.device.tensor("verify.blocks", &[rows, 32], dtype, &bytes)?;
                let ids: Vec<u32> = (0..u32::try_from(rows).unwrap_or(0)).collect();
                let codes = self.device.tensor_u32("verify.codes", &[rows], &ids)?;
                let tables = Tables { tokens, added: None, image: None, regions: None };
                let y = ops::embed(&mut p, &codes, 0, rows, &tables)?;
                self.value(p, y).await
            }
            other => Err(Error::new(Code::PackInvalid, "the operation is unknown").at(other)),
        }
    }

    async fn attention(&self) -> Result<Vec<f32>> {
        let rows = |name: &str| -> Result<(Vec<f32>, [usize; 3])> {
            let n = self.input(name)?;
            let [heads, tokens, width] = n.shape[..] else { return Err(Error::internal("heads, tokens, width")) };
            let x = n.to_f32();
            let at = |t: usize, h: usize| &x[(h * tokens + t) * width..][..width];
            let joined = (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))).flat_map(|(t, h)| at(t, h)).copied();
            Ok((joined.collect(), [heads, tokens, width]))
        };
        let ((q, [heads, count, width]), (k, [kv, keys, _]), (v, _)) = (rows("q")?, rows("k")?, rows("v")?);
        let mut p = self.plan();
        let q = p.resident(&self.tensor(&[count, heads * width], &q)?);
        let (k, v) = (self.tensor(&[keys, kv * width], &k)?, self.tensor(&[keys, kv * width], &v)?);
        let y = if self.attr("causal").as_bool() == Some(true) {
            let past = u32::try_from(self.size("past")).unwrap_or(0);
            let state = self.device.tensor_u32("verify.state", &[4], &[past, 1, 0, 0])?;
            ops::cached_attention(&mut p, q, &Cache { k, v, state }, heads, kv, width)?
        } else {
            let (k, v) = (p.resident(&k), p.resident(&v));
            ops::attention(&mut p, Columns::all(q), Columns::all(k), Columns::all(v), heads, width)?
        };
        let y = self.value(p, y).await?;
        let at = |t: usize, h: usize| &y[(t * heads + h) * width..][..width];
        Ok((0..heads).flat_map(|h| (0..count).map(move |t| (t, h))).flat_map(|(t, h)| at(t, h)).copied().collect())
    }

    /// Rotation lives behind norm and projection: the projection is the identity, and the norm's factor is taken back.
    async fn rope(&self) -> Result<Vec<f32>> {
        let n = self.input("x")?;
        let [heads, tokens, width] = n.shape[..] else { return Err(Error::internal("heads, tokens, width")) };
        let x = n.to_f32();
        let positions: Vec<usize> = serde_json::from_value(self.attr("positions").clone()).unwrap_or_default();
        let hidden = heads * width;
        let mut stack = vec![0.0; 3 * hidden * hidden];
        (0..3 * hidden).for_each(|i| stack[i * hidden + i % hidden] = 1.0);
        let capacity = positions.iter().max().map_or(1, |m| m + 1);
        let theta = self.attr("theta").as_f64().unwrap_or(1e4);
        let table = ops::qkv::rope_table(capacity, width, theta);
        let projection = Projection {
            norm: self.tensor(&[hidden], &vec![1.0; hidden])?,
            eps: 0.0,
            weight: self.tensor(&[3 * hidden, hidden], &stack)?,
            rope: self.tensor(&[capacity, width], &table)?,
        };
        let cache = Cache {
            k: self.device.zeros("verify.k", &[capacity, hidden], DType::F32)?,
            v: self.device.zeros("verify.v", &[capacity, hidden], DType::F32)?,
            state: self.device.zeros("verify.state", &[4], DType::U32)?,
        };
        let mut out = vec![0.0; x.len()];
        for (t, position) in positions.iter().enumerate() {
            let row: Vec<f32> =
                (0..heads).flat_map(|h| to_neighbours(&x[(h * tokens + t) * width..][..width])).collect();
            let rms = (row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / hidden as f64).sqrt() as f32;
            self.device.write_u32(&cache.state, 0, &[u32::try_from(*position).unwrap_or(0), 1, 0, 0])?;
            let mut p = self.plan();
            let x = p.resident(&self.tensor(&[1, hidden], &row)?);
            let q = ops::qkv(&mut p, x, &projection, &cache, heads, heads, width)?;
            let q: Vec<f32> = self.value(p, q).await?.iter().map(|v| v * rms).collect();
            for (h, head) in q.chunks_exact(width).enumerate() {
                out[(h * tokens + t) * width..][..width].copy_from_slice(&from_neighbours(head));
            }
        }
        Ok(out)
    }

    async fn exchange(&self, report: &mut Report<'_>) -> Result<()> {
        let names = ["a", "b", "c"];
        let maps = names.iter().map(|n| self.map(n)).collect::<Result<Vec<_>>>()?;
        let sizes: Vec<(usize, usize)> = maps.iter().map(|(_, h, w)| (*h, *w)).collect();
        for (l, name) in names.iter().enumerate() {
            let (next, previous) = ((l + 1).min(2), l.saturating_sub(1));
            let mut p = self.plan();
            let nodes: Vec<Node> = maps.iter().map(|m| p.resident(&m.0)).collect();
            let y = ops::exchange(
                &mut p,
                nodes[l],
                nodes[next],
                nodes[previous],
                [sizes[l], sizes[next], sizes[previous]],
            )?;
            let y = self.map_value(p, y).await?;
            self.give(report, &format!("y{name}"), &y, false)?;
        }
        Ok(())
    }

    async fn discrete(&self, report: &mut Report<'_>) -> Result<()> {
        let n = self.input("x")?;
        let mut p = self.plan();
        if self.case["op"] == "top_k" {
            let x = p.resident(&self.tensor(&[n.values.len(), 1], &n.to_f32())?);
            let ids = ops::top_k(&mut p, x, self.size("k"))?;
            let out = self.device.zeros("verify.ids", p.shape(ids), DType::U32)?;
            ops::copy_into(&mut p, ids, &out)?;
            p.compile()?.run(&Run::default()).await?;
            let ids = self.device.read_u32(&[&out]).await?.remove(0);
            report.result(self.case, "ids", json!(ids));
            return Ok(());
        }
        let mut best = Vec::new();
        for row in n.to_f32().chunks_exact(n.shape[1]) {
            let mut p = self.plan();
            let x = p.resident(&self.tensor(&[1, row.len()], row)?);
            let state = self.device.tensor_u32("verify.state", &[4], &[0, 1, 0, 0])?;
            let history = self.device.zeros("verify.history", &[4], DType::U32)?;
            ops::argmax(&mut p, &[x], &state, &history)?;
            p.compile()?.run(&Run::default()).await?;
            best.push(self.device.read_u32(&[&history]).await?[0][0]);
        }
        report.result(self.case, "ids", json!(best));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_go_to_neighbours_and_back() {
        let row: Vec<f32> = (0..8u8).map(f32::from).collect();
        assert_eq!(to_neighbours(&row)[..4], [0.0, 4.0, 1.0, 5.0]);
        assert_eq!(from_neighbours(&to_neighbours(&row)), row, "there and back");
    }
}
