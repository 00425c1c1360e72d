//! Selection: which of the proposed boxes, and of the boxes that a person drew, become regions.
//!
//! Runs on the host. Ties are broken by the lowest index everywhere, so that every device selects the same.

use super::config::INDEX_TOKENS;
use crate::error::{Code, Error, Result};
use crate::tensor::ops::top_k::best as top_k;

/// What decides a selection, as the config has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A box that overlaps a better one by more than this IoU is dropped.
    pub nms: f32,
    /// Boxes with a score up to this are dropped; zero or less filters nothing.
    pub score: f32,
    /// The most regions that are kept.
    pub max: usize,
    /// Permutes the regions (upstream does so without a seed, O-8); `None` keeps the order of scores.
    pub shuffle_seed: Option<u64>,
}

/// The kept regions, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Selected {
    /// Rows of the proposer's boxes; from the number of those on: the user's boxes.
    pub index: Vec<usize>,
    /// Centre, width and height, relative to the photo.
    pub boxes: Vec<[f32; 4]>,
    /// A user box has exactly 1.
    pub scores: Vec<f32>,
    /// For each user box the kept region that overlaps it most.
    pub matches: Vec<usize>,
}

/// Selects from the proposer's `boxes` and the boxes of the `user`, all as (cx, cy, w, h) in 0..1.
///
/// # Errors
/// `box-outside` for boxes without an area and for more of them than a prompt holds; `pack-invalid` where the rules ask for more
/// regions than there are index tokens.
pub fn select(boxes: &[[f32; 4]], scores: &[f32], user: &[[f32; 4]], rules: &Rules) -> Result<Selected> {
    if boxes.len() != scores.len() {
        return Err(Error::internal("a selection needs one score a box").expected(boxes.len(), scores.len()));
    }
    if !(1..=INDEX_TOKENS).contains(&rules.max) {
        let e = Error::new(Code::PackInvalid, "the number of regions has no index tokens");
        return Err(e.expected("1 to 100", rules.max).at("max_region_num"));
    }
    let user = check_user(user)?;
    let all_boxes: Vec<[f32; 4]> = boxes.iter().chain(&user).copied().collect();
    let all_scores: Vec<f32> = scores.iter().copied().chain(user.iter().map(|_| 1.0)).collect();
    let shapes: Vec<[f32; 4]> = all_boxes.iter().map(corners).collect();
    let mut index = nms(&shapes, &all_scores, rules.nms, rules.score, Some(rules.max));
    if index.is_empty() {
        // A prompt without any region is not what the model knows: the best one stands in, never permuted.
        index = top_k(&all_scores, 1);
    } else if let Some(seed) = rules.shuffle_seed {
        index = seeded_order(index.len(), seed).into_iter().map(|i| index[i]).collect();
    }
    let kept: Vec<[f32; 4]> = index.iter().map(|&i| shapes[i]).collect();
    let matches = shapes[boxes.len()..].iter().map(|u| most_overlapping(u, &kept)).collect();
    Ok(gather(&all_boxes, &all_scores, index, matches))
}

/// Boxes and scores of the rows `index`.
fn gather(boxes: &[[f32; 4]], scores: &[f32], index: Vec<usize>, matches: Vec<usize>) -> Selected {
    Selected {
        boxes: index.iter().map(|&i| boxes[i]).collect(),
        scores: index.iter().map(|&i| scores[i]).collect(),
        index,
        matches,
    }
}

/// The best of the proposer's boxes for who reads a list of them: as [`select`] without a person's boxes, but there may
/// be more than a prompt has index tokens for, or none.
#[must_use]
pub fn list(boxes: &[[f32; 4]], scores: &[f32], rules: &Rules) -> Selected {
    let shapes: Vec<[f32; 4]> = boxes.iter().map(corners).collect();
    gather(boxes, scores, nms(&shapes, scores, rules.nms, rules.score, Some(rules.max)), Vec::new())
}

/// Refuses boxes without area (their IoU is 0/0, O-21) and clamps the numbers of the others.
fn check_user(user: &[[f32; 4]]) -> Result<Vec<[f32; 4]>> {
    if user.len() > INDEX_TOKENS {
        return Err(Error::new(Code::BoxOutside, "there are too many boxes").expected("at most 100", user.len()));
    }
    let checked = user.iter().enumerate().map(|(i, b)| {
        let clamped = b.map(|v| v.clamp(0.0, 1.0));
        if b.iter().all(|v| v.is_finite()) && clamped[2] > 0.0 && clamped[3] > 0.0 {
            Ok(clamped)
        } else {
            Err(Error::new(Code::BoxOutside, "the box has no area").at(format!("box {}", i + 1)))
        }
    });
    checked.collect()
}

/// A box that a person gave in pixels `[x0, y0, x1, y1]` of a photo, as the model wants it: cut to the photo, centre
/// form, relative.
///
/// # Errors
/// `box-outside` where the box has no area or lies outside.
pub fn from_pixels(bbox: [f32; 4], width: usize, height: usize) -> Result<[f32; 4]> {
    let (w, h) = (width as f32, height as f32);
    let text = || format!("{},{},{},{}", bbox[0], bbox[1], bbox[2], bbox[3]);
    if !bbox.iter().all(|v| v.is_finite()) || bbox[2] <= bbox[0] || bbox[3] <= bbox[1] {
        let e = Error::new(Code::BoxOutside, "the box has no area");
        return Err(e.expected("x0,y0,x1,y1 with x0 < x1 and y0 < y1", text()));
    }
    let [x0, y0, x1, y1] = [bbox[0].max(0.0), bbox[1].max(0.0), bbox[2].min(w), bbox[3].min(h)];
    if x1 <= x0 || y1 <= y0 {
        let e = Error::new(Code::BoxOutside, "the box lies outside the photo");
        return Err(e.expected(format!("a box within 0,0,{width},{height}"), text()));
    }
    Ok([(x0 + x1) / 2.0 / w, (y0 + y1) / 2.0 / h, (x1 - x0) / w, (y1 - y0) / h])
}

/// A relative box in centre form as pixels `[x0, y0, x1, y1]`, cut to the photo.
#[must_use]
pub fn to_pixels(bbox: &[f32; 4], width: usize, height: usize) -> [f32; 4] {
    let (w, h) = (width as f32, height as f32);
    let [x0, y0, x1, y1] = corners(bbox);
    [(x0 * w).clamp(0.0, w), (y0 * h).clamp(0.0, h), (x1 * w).clamp(0.0, w), (y1 * h).clamp(0.0, h)]
}

/// (cx, cy, w, h) to (x0, y0, x1, y1).
#[must_use]
pub fn corners(b: &[f32; 4]) -> [f32; 4] {
    let [cx, cy, w, h] = *b;
    [cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h]
}

/// Intersection over union of two corner boxes, in f64 so that its own rounding decides nothing; 0/0 is NaN.
#[must_use]
pub fn iou(a: &[f32; 4], b: &[f32; 4]) -> f64 {
    let (a, b) = (a.map(f64::from), b.map(f64::from));
    let area = |t: &[f64; 4]| (t[2] - t[0]) * (t[3] - t[1]);
    let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    w * h / (area(&a) + area(&b) - w * h)
}

/// The corner box of `kept` that overlaps `user` most; the first one on ties.
#[must_use]
pub fn most_overlapping(user: &[f32; 4], kept: &[[f32; 4]]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, k) in kept.iter().enumerate() {
        let v = iou(user, k);
        if v > best.1 {
            best = (i, v);
        }
    }
    best.0
}

/// Greedy non-maximum suppression over corner boxes: indices, best first.
///
/// Both comparisons are strict: a score at the threshold is dropped, an IoU at the threshold is kept. A score
/// threshold of zero or less filters nothing. Boxes without area suppress nothing (NaN compares false).
#[must_use]
pub fn nms(boxes: &[[f32; 4]], scores: &[f32], iou_thr: f32, score_thr: f32, max: Option<usize>) -> Vec<usize> {
    let max = max.unwrap_or(usize::MAX);
    let mut keep: Vec<usize> = Vec::new();
    for i in top_k(scores, scores.len()) {
        if keep.len() == max {
            break;
        }
        let passes = score_thr <= 0.0 || scores[i] > score_thr;
        if passes && !keep.iter().any(|&k| iou(&boxes[k], &boxes[i]) > f64::from(iou_thr)) {
            keep.push(i);
        }
    }
    keep
}

/// The permutation of `n` things that a seed stands for: Fisher-Yates from the end, numbers by SplitMix64.
#[must_use]
pub fn seeded_order(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for i in (1..n).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        order.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groma::golden::Golden;

    #[test]
    fn operations_equal_the_goldens() {
        let g = Golden::open("ops");
        let mut seen = 0;
        for case in g.cases() {
            let id = case["id"].as_str().unwrap();
            let attrs = &case["attrs"];
            let ids = || -> Vec<usize> { serde_json::from_value(case["expect"]["ids"].clone()).unwrap() };
            match case["op"].as_str().unwrap() {
                "top_k" => {
                    let k = attrs["k"].as_u64().unwrap() as usize;
                    assert_eq!(top_k(&g.input(case, "x").f32(), k), ids(), "{id}");
                }
                "nms" => {
                    let max = attrs["max"].as_i64().unwrap();
                    let got = nms(
                        g.input(case, "boxes").f32().as_chunks().0,
                        &g.input(case, "scores").f32(),
                        attrs["iou"].as_f64().unwrap() as f32,
                        attrs["score"].as_f64().unwrap() as f32,
                        usize::try_from(max).ok(),
                    );
                    assert_eq!(got, ids(), "{id}");
                }
                "corners" => {
                    let got: Vec<f32> = g.input(case, "x").f32().as_chunks().0.iter().flat_map(corners).collect();
                    g.output(case, "y").assert_close(&got, 1e-6, id);
                }
                "iou" => {
                    let a: Vec<_> = g.input(case, "a").f32().as_chunks().0.iter().map(corners).collect();
                    let b: Vec<_> = g.input(case, "b").f32().as_chunks().0.iter().map(corners).collect();
                    let got: Vec<f32> = a.iter().flat_map(|x| b.iter().map(|y| iou(x, y) as f32)).collect();
                    g.output(case, "y").assert_close(&got, 1e-5, id);
                }
                "seeded_order" => {
                    let requests: Vec<(usize, u64)> = serde_json::from_value(attrs["requests"].clone()).unwrap();
                    let want: Vec<Vec<usize>> = serde_json::from_value(case["expect"]["ids"].clone()).unwrap();
                    for ((n, seed), want) in requests.into_iter().zip(want) {
                        assert_eq!(seeded_order(n, seed), want, "{id} {n} {seed}");
                    }
                }
                _ => continue,
            }
            seen += 1;
        }
        assert!(seen >= 9, "only {seen} operations of selection among the goldens");
    }

    #[test]
    fn whole_selections_equal_the_goldens() {
        for folder in ["tiny", "tiny2", "tiny3", "tiny4", "tiny5", "small"] {
            let g = Golden::open(folder);
            for case in g.cases() {
                let (id, image) = (case["id"].as_str().unwrap(), case["image"].as_str().unwrap());
                let (boxes, scores) =
                    (g.expected(&format!("{image}/det.boxes")), g.expected(&format!("{image}/det.scores")));
                if boxes.sliced || scores.sliced {
                    continue;
                }
                let number =
                    |key: &str, default: f64| case[key].as_f64().or(g.config[key].as_f64()).unwrap_or(default) as f32;
                let rules = Rules {
                    nms: number("nms_thres", 0.6),
                    score: number("box_score_thres", 0.15),
                    max: g.config["max_region_num"].as_u64().unwrap_or(100) as usize,
                    shuffle_seed: case["shuffle_seed"].as_u64(),
                };
                let user: Vec<[f32; 4]> =
                    case.get("refer_boxes").map_or(Vec::new(), |b| serde_json::from_value(b.clone()).unwrap());
                let got = select(boxes.f32().as_chunks().0, &scores.f32(), &user, &rules).unwrap();
                let want: Vec<usize> = serde_json::from_value(case["expect"]["region_index"].clone()).unwrap();
                assert_eq!(got.index, want, "{folder}/{id}");
                let want: Vec<usize> = serde_json::from_value(case["expect"]["match"].clone()).unwrap();
                assert_eq!(got.matches, want, "{folder}/{id}");
            }
        }
    }

    const RULES: Rules = Rules { nms: 0.6, score: 0.15, max: 100, shuffle_seed: None };

    #[test]
    fn user_boxes_without_area_are_refused() {
        for bad in [[0.5, 0.5, 0.0, 0.1], [0.5, 0.5, 0.1, -0.1], [0.5, f32::NAN, 0.1, 0.1]] {
            assert_eq!(select(&[], &[], &[bad], &RULES).unwrap_err().code, Code::BoxOutside);
        }
        assert_eq!(select(&[], &[], &[[0.5, 0.5, 0.1, 0.1]; 101], &RULES).unwrap_err().code, Code::BoxOutside);
        let beyond = Rules { max: 101, ..RULES };
        assert_eq!(select(&[], &[], &[], &beyond).unwrap_err().code, Code::PackInvalid);
    }

    #[test]
    fn nothing_above_the_threshold_leaves_the_best_one() {
        let boxes = [[0.5, 0.5, 0.1, 0.1], [0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]];
        let got = select(&boxes, &[0.05, 0.1, 0.1], &[], &Rules { shuffle_seed: Some(1), ..RULES }).unwrap();
        assert_eq!(got.index, [1]);
        assert_eq!(select(&[], &[], &[], &RULES).unwrap(), Selected::default());
    }

    #[test]
    fn pixels_and_back() {
        let b = from_pixels([10.0, 20.0, 60.0, 100.0], 200, 100).unwrap();
        assert_eq!(b, [0.175, 0.6, 0.25, 0.8]);
        let back = to_pixels(&b, 200, 100);
        assert!(back.iter().zip([10.0, 20.0, 60.0, 100.0]).all(|(a, b)| (a - b).abs() < 1e-4), "{back:?}");
        assert_eq!(from_pixels([-10.0, -10.0, 300.0, 50.0], 200, 100).unwrap(), [0.5, 0.25, 1.0, 0.5]);
        let outside = from_pixels([201.0, 0.0, 220.0, 10.0], 200, 100).unwrap_err();
        assert_eq!(outside.code, Code::BoxOutside);
        assert_eq!(
            outside.to_string(),
            "the box lies outside the photo: expected a box within 0,0,200,100, got 201,0,220,10"
        );
        assert_eq!(from_pixels([5.0, 5.0, 5.0, 9.0], 200, 100).unwrap_err().code, Code::BoxOutside);
    }
}
