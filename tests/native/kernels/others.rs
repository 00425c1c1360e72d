//! Norms, movements of rows and maps, what becomes of boxes, choices.

use groma::tensor::ops::{self, Act, Deformable, Weights};
use groma::tensor::{DType, Plan, Value};

use crate::harness::{Case, EXACT, FUNCTIONS, SUMS, case, table, table_times};

#[test]
pub(crate) fn norms() {
    let mut cases = Vec::new();
    for (rows, cols) in [(1, 20), (5, 384), (130, 37)] {
        for scale in [1.0, 1e4] {
            cases.push(case(format!("layer_norm {rows}x{cols} {scale}"), move |b| {
                let (x, plus) = (b.scaled(&[rows, cols], scale), b.f32(&[rows, cols]));
                let (w, bias) = (b.vector(cols), b.vector(cols));
                let p = &mut b.plan;
                let all = [
                    ops::layer_norm(p, x, None, &w, &bias, 1e-6)?,
                    ops::layer_norm(p, x, Some(plus), &w, &bias, 1e-6)?,
                    ops::relu_layer_norm(p, x, &w, &bias, 1e-5)?,
                    ops::layer_norm_act(p, x, &w, &bias, 1e-5, Act::Gelu)?,
                    ops::rms_norm(p, x, &w, 1e-5)?,
                ];
                all.into_iter().for_each(|v| b.keep(v));
                Ok(())
            }));
        }
    }
    cases.push(case("layer_norm far from zero", |b| {
        let x = b.plan.constant("x", &[2, 64], &(0..128).map(|i| 1000.0 + i as f32 / 8.0).collect::<Vec<_>>())?;
        let (w, bias) = (b.vector(64), b.vector(64));
        let y = ops::layer_norm(&mut b.plan, x, None, &w, &bias, 1e-6)?;
        b.keep(y);
        Ok(())
    }));
    for (pixels, channels, groups) in [(35, 12, 3), (900, 64, 32), (1, 8, 8)] {
        cases.push(case(format!("group_norm {pixels}x{channels}/{groups}"), move |b| {
            let x = b.scaled(&[pixels, channels], 50.0);
            let (w, bias) = (b.vector(channels), b.vector(channels));
            let y = ops::group_norm_relu(&mut b.plan, x, &w, &bias, groups, 1e-5)?;
            b.keep(y);
            Ok(())
        }));
    }
    table(SUMS, cases);
}

/// A case of an operation on values that moves numbers only.
fn moved(
    name: &str,
    build: impl Fn(&mut Plan, Value) -> groma::Result<Value> + 'static,
    shape: &'static [usize],
) -> Case {
    case(name, move |b| {
        let x = b.f32(shape);
        let y = build(&mut b.plan, x)?;
        b.keep(y);
        Ok(())
    })
}

#[test]
pub(crate) fn movements() {
    let mut cases = vec![
        moved("rows_to_columns", |p, x| ops::rows_to_columns(p, x, 3), &[21, 5]),
        moved("merge_cells", |p, x| ops::merge_cells(p, x, 1, 6, 8, 2), &[49, 5]),
        moved("concat_rows", |p, x| ops::concat_rows(p, &[x, x, x]), &[7, 5]),
        moved("first_columns", |p, x| Ok(ops::rows::first_columns(p, x, 3)), &[7, 5]),
    ];
    // more than 65535 workgroups of 64
    cases.push(case("a folded grid", |b| {
        let x = b.f32(&[2_100_000, 2]);
        b.keep(x);
        Ok(())
    }));
    cases.push(case("gather_rows", |b| {
        let (x, ids) = (b.f32(&[9, 5]), b.ids(&[8, 0, 3, 3]));
        let y = ops::gather_rows(&mut b.plan, x, ids);
        b.keep(y);
        b.keep(ids);
        Ok(())
    }));
    cases.push(case("last_row", |b| {
        let x = b.f32(&[9, 70]);
        let state = b.ids_tensor(&[3, 6, 0, 0]);
        let y = ops::last_row(&mut b.plan, x, &state);
        b.keep(y);
        Ok(())
    }));
    cases.push(case("mask_rows", |b| {
        let x = b.f32(&[4, 5]);
        let mask = b.plan.constant("mask", &[4], &[1.0, 0.0, 0.0, 1.0])?;
        let y = ops::mask_rows(&mut b.plan, x, mask)?;
        b.keep(y);
        Ok(())
    }));
    table(EXACT, cases);
}

#[test]
pub(crate) fn sums_and_maps() {
    let mut cases = Vec::new();
    cases.push(case("add, average, class row", |b| {
        let x: Vec<_> = (0..4).map(|_| b.f32(&[6, 11])).collect();
        let table = b.f32(&[7, 11]);
        let p = &mut b.plan;
        let all = [
            ops::add(p, x[0], x[1])?,
            ops::average(p, &x, 1)?,
            ops::average(p, &x[..3], 0)?,
            ops::with_class_row(p, x[0], table)?,
        ];
        all.into_iter().for_each(|v| b.keep(v));
        Ok(())
    }));
    for (from, to) in [((4, 6), (8, 12)), ((5, 7), (3, 11)), ((3, 3), (3, 3)), ((2, 5), (1, 1)), ((32, 32), (64, 64))] {
        cases.push(case(format!("with_coordinates {from:?} to {to:?}"), move |b| {
            let x = b.f32(&[1 + from.0 * from.1, 6]);
            let y = ops::with_coordinates(&mut b.plan, x, 1, from, to)?;
            b.keep(y);
            Ok(())
        }));
    }
    cases.push(case("exchange", |b| {
        let sizes = [(4, 6), (8, 12), (3, 5)];
        let [own, next, previous] = sizes.map(|(h, w)| b.f32(&[h * w, 10]));
        let y = ops::exchange(&mut b.plan, own, next, previous, sizes)?;
        b.keep(y);
        Ok(())
    }));
    cases.push(case("roi_align", |b| {
        let x = b.f32(&[7 * 9, 6]);
        let rois =
            [[0.0, 0.0, 90.0, 70.0], [10.0, 20.0, 35.5, 60.25], [50.0, 30.0, 40.0, 30.0], [-30.0, -20.0, 150.0, 90.0]];
        let rois = b.plan.constant("rois", &[4, 4], rois.as_flattened())?;
        let y = ops::roi_align(&mut b.plan, x, rois, (7, 9), 0.1, 4)?;
        b.keep(y);
        Ok(())
    }));
    table(SUMS, cases);
}

#[test]
pub(crate) fn deformable_attention() {
    let mut cases = Vec::new();
    for (numbers, weights, width) in [(2, Weights::Logits, 8), (4, Weights::Logits, 6), (2, Weights::Given, 32)] {
        for levels in [vec![(5, 7)], vec![(8, 8), (4, 4), (3, 2)]] {
            let name = format!("deformable {numbers} {weights:?} {width} {levels:?}");
            cases.push(case(name, move |b| {
                let shape = Deformable { heads: 3, points: 4, levels: levels.clone(), weights };
                let pixels = levels.iter().map(|(h, w)| h * w).sum();
                let value = b.f32(&[pixels, 3 * width]);
                let projection = b.scaled(&[11, 3 * 3 * 4 * levels.len()], 4.0);
                let half = b.rand.numbers(11 * numbers).iter().map(|v| v * 0.6 + 0.5).collect::<Vec<_>>();
                let reference = b.plan.constant("reference", &[11, numbers], &half)?;
                let y = ops::deformable(&mut b.plan, value, projection, reference, shape)?;
                b.keep(y);
                Ok(())
            }));
        }
    }
    table(FUNCTIONS, cases);
}

#[test]
pub(crate) fn boxes() {
    let cases = vec![
        case("first_reference", |b| {
            let delta = b.scaled(&[3, 4], 3.0);
            let proposals = b
                .rand
                .numbers(25)
                .into_iter()
                .enumerate()
                .map(|(i, v)| if i % 5 == 4 { f32::from(u8::from(i != 14)) } else { v });
            let proposals: Vec<f32> = proposals.collect();
            let proposals = b.plan.constant("proposals", &[5, 5], &proposals)?;
            let ids = b.ids(&[4, 2, 0]);
            let y = ops::first_reference(&mut b.plan, delta, proposals, ids)?;
            b.keep(y);
            Ok(())
        }),
        case("sine_reference", |b| {
            let mut places: Vec<f32> = (0..200).map(|i| i as f32 / 199.0).collect();
            places[7] = 1e-7;
            let reference = b.plan.constant("reference", &[50, 4], &places)?;
            let y = ops::sine_reference(&mut b.plan, reference, 128)?;
            b.keep(y);
            Ok(())
        }),
        case("refine", |b| {
            let delta = b.scaled(&[40, 4], 9.0);
            for numbers in [2, 4] {
                let base: Vec<f32> = b.rand.numbers(40 * numbers).iter().map(|v| v * 0.7 + 0.5).collect();
                let base = b.plan.constant("base", &[40, numbers], &base)?;
                let y = ops::refine(&mut b.plan, delta, base)?;
                b.keep(y);
            }
            Ok(())
        }),
        case("score_fusion", |b| {
            let (coco, sa1b) = (b.scaled(&[70, 1], 20.0), b.scaled(&[70, 1], 20.0));
            let y = ops::score_fusion(&mut b.plan, coco, sa1b)?;
            b.keep(y);
            Ok(())
        }),
    ];
    table(FUNCTIONS, cases);
}

#[test]
pub(crate) fn choices() {
    let mut cases = Vec::new();
    for (n, k) in [(1, 1), (300, 20), (3000, 300)] {
        cases.push(case(format!("top_k {k} of {n}"), move |b| {
            // coarse numbers: many are equal, and zeros have signs
            let x: Vec<f32> = b.rand.numbers(n).iter().map(|v| (v * 20.0).round() / 4.0).collect();
            let x = b.plan.constant("scores", &[n, 1], &x)?;
            let ids = ops::top_k(&mut b.plan, x, k)?;
            b.keep(ids);
            Ok(())
        }));
    }
    let odd = [-0.0, 0.0, f32::NAN, -1.0, -0.0, 1e-40, 0.0, -f32::NAN, f32::NEG_INFINITY, -1e-40, f32::INFINITY];
    cases.push(case("top_k of zeros, of infinities and of what is no number", move |b| {
        let x = b.plan.constant("scores", &[11, 1], &odd)?;
        let ids = ops::top_k(&mut b.plan, x, 11)?;
        b.keep(ids);
        Ok(())
    }));
    table(EXACT, cases);
    let mut cases = Vec::new();
    // the kernel's threads read every 256th logit: 44, 300 and 556 are one thread's, and 556 is the greatest
    let (nan, least) = (f32::NAN, f32::NEG_INFINITY);
    for (broken, rest, best) in [(0, 3.0, 4.0), (44, 3.0, 4.0), (300, nan, 4.0), (0, nan, nan), (0, least, least)] {
        cases.push(case(format!("argmax with NaN at {broken}, {best} among {rest}"), move |b| {
            let mut x = vec![rest; 600];
            (x[broken], x[556]) = (nan, best);
            let logits = [b.plan.constant("logits", &[1, 600], &x)?, b.plan.constant("added", &[1, 2], &[nan, least])?];
            let state = b.ids_tensor(&[7, 5, 0, 2]);
            let history = b.device.zeros("history", &[4], DType::U32)?;
            ops::argmax(&mut b.plan, &logits, &state, &history)?;
            b.keep_tensor(&state);
            b.keep_tensor(&history);
            Ok(())
        }));
    }
    for (vocabulary, added) in [(5, 0), (1000, 3), (49_155, 10)] {
        cases.push(case(format!("argmax of {vocabulary} + {added}"), move |b| {
            let coarse: Vec<f32> = b.rand.numbers(vocabulary).iter().map(|v| (v * 50.0).round() - 3000.0).collect();
            let mut logits = vec![b.plan.constant("logits", &[1, vocabulary], &coarse)?];
            if added > 0 {
                logits.push(b.f32(&[1, added]));
                logits[1] = b.plan.constant("added", &[1, added], &vec![-2950.0; added])?;
            }
            let state = b.ids_tensor(&[7, 5, 0, 2]);
            let history = b.device.zeros("history", &[4], DType::U32)?;
            ops::argmax(&mut b.plan, &logits, &state, &history)?;
            b.keep_tensor(&state);
            b.keep_tensor(&history);
            Ok(())
        }));
    }
    table_times(EXACT, cases, 3);
}
