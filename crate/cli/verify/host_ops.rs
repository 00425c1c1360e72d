//! Operations of the folder of single operations that the host computes in every plan, whatever the device: resizing,
//! tables, boxes, selection, prompts.

use serde_json::json;

use super::Report;
use super::golden::Numbers;
use super::ops::Op;
use crate::error::Result;
use crate::groma::preprocess::{Rgb, normalise, resize_bicubic};
use crate::groma::prompt::{self, Special};
use crate::groma::{encoder, proposer, select};
use crate::tensor::ops;

impl Op<'_> {
    fn boxes(&self, name: &str) -> Result<Vec<[f32; 4]>> {
        Ok(self.f32(name)?.as_chunks::<4>().0.to_vec())
    }

    /// Runs the operation and judges its output, which is printed as the host's.
    pub(super) fn host(&self, report: &mut Report<'_>) -> Result<()> {
        let rgb = |n: &Numbers| Rgb::new(n.shape[1], n.shape[0], n.values.iter().map(|v| *v as u8).collect());
        match self.case["op"].as_str().unwrap_or_default() {
            "resize_bicubic_u8" => {
                let out = resize_bicubic(&rgb(self.input("x")?)?, self.size("size"));
                let values: Vec<f32> = out.data.iter().map(|b| f32::from(*b)).collect();
                self.give(report, "y", &values, true)
            }
            "normalise" => self.give(report, "y", &normalise(&rgb(self.input("x")?)?), true),
            "position_table" => {
                let n = self.input("table")?;
                self.give(report, "y", &encoder::position_table(&n.to_f32(), n.shape[1], self.size("h")), true)
            }
            "sine_position" => {
                let d = self.size("d");
                self.give(report, "y", &proposer::positions((self.size("h"), self.size("w")), d, &vec![0.0; d]), true)
            }
            "proposals" => {
                let table = proposer::cells(self.size("h"), self.size("w"), self.size("level"));
                let rows = table.as_chunks::<5>().0;
                let logits: Vec<f32> = rows
                    .iter()
                    .flat_map(|r| if r[4] == 0.0 { [f32::INFINITY; 4] } else { [r[0], r[1], r[2], r[3]] })
                    .collect();
                self.give(report, "logit", &logits, true)?;
                self.give(report, "valid", &rows.iter().map(|r| r[4]).collect::<Vec<_>>(), true)
            }
            "corners" => {
                let y: Vec<f32> = self.boxes("x")?.iter().flat_map(select::corners).collect();
                self.give(report, "y", &y, true)
            }
            "iou" => {
                let corners = |name: &str| self.boxes(name).map(|b| b.iter().map(select::corners).collect::<Vec<_>>());
                let (a, b) = (corners("a")?, corners("b")?);
                let y: Vec<f32> = a.iter().flat_map(|a| b.iter().map(|b| select::iou(a, b) as f32)).collect();
                self.give(report, "y", &y, true)
            }
            "inverse_sigmoid" => {
                let y: Vec<f32> = self.f32("x")?.iter().map(|v| ops::boxes::inverse_sigmoid(*v)).collect();
                self.give(report, "y", &y, true)
            }
            "deformable_locations" => {
                let levels: Vec<(usize, usize)> =
                    serde_json::from_value(self.attr("shapes").clone()).unwrap_or_default();
                let (reference, off) = (self.input("ref")?, self.input("off")?);
                let (points, numbers) = (self.size("points"), reference.shape[1]);
                let per_query = off.values.len() / off.shape[0];
                let references = reference.to_f32();
                let y: Vec<f32> = off
                    .to_f32()
                    .chunks_exact(2)
                    .enumerate()
                    .flat_map(|(i, o)| {
                        let q = i * 2 / per_query;
                        let level = levels[i / points % levels.len()];
                        let (x, y) = ops::deformable::location(&references[q * numbers..][..numbers], o, level, points);
                        [x, y]
                    })
                    .collect();
                self.give(report, "y", &y, true)
            }
            "nms" => {
                let max = usize::try_from(self.attr("max").as_i64().unwrap_or(-1)).ok();
                let (boxes, scores) = (self.boxes("boxes")?, self.f32("scores")?);
                let ids = select::nms(&boxes, &scores, self.number("iou"), self.number("score"), max);
                report.host_result(self.case, "ids", json!(ids));
                Ok(())
            }
            "seeded_order" => {
                let requests: Vec<(usize, u64)> =
                    serde_json::from_value(self.attr("requests").clone()).unwrap_or_default();
                let ids: Vec<_> = requests.iter().map(|(n, seed)| select::seeded_order(*n, *seed)).collect();
                report.host_result(self.case, "ids", json!(ids));
                Ok(())
            }
            _ => {
                let ids: Vec<u32> = serde_json::from_value(self.attr("ids").clone()).unwrap_or_default();
                let id = |name: &str| u32::try_from(self.size(name)).unwrap_or(0);
                let first = id("first_index");
                let special = Special {
                    image: id("image"),
                    region: id("region"),
                    refer_box: u32::MAX,
                    refer_feat: u32::MAX - 1,
                    index: (first..first + 100).collect(),
                };
                let out = prompt::expand(&ids, self.size("num_image"), self.size("num_region"), &[], &special)?;
                report.host_result(self.case, "ids", json!(out.ids));
                Ok(())
            }
        }
    }
}
