//! Folders that hold a model, or a part of one: every photo, then every case.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};

use super::Report;
use super::golden::{Numbers, json as read_json, read};
use crate::error::{At, Code, Error, Result};
use crate::groma::decoder::Ending;
use crate::groma::preprocess;
use crate::groma::prompt::{self, Row};
use crate::groma::sample::Sampler;
use crate::groma::select::{Rules, Selected, select};
use crate::groma::tokens::{Part, Tokens};
use crate::pack::{Checkpoint, Source};
use crate::session::{Model, Sources, Text, photo_tokens_plan, without_stop};
use crate::tensor::plan::{Run, Tap, TapForm};
use crate::tensor::{Device, Tensor};

pub(super) fn run(report: &mut Report<'_>, device: &Device, bases: Option<&Path>) -> Result<()> {
    pollster::block_on(verify(report, device, bases))
}

/// A photo after everything that depends on it only.
struct Looked {
    boxes: Vec<[f32; 4]>,
    scores: Vec<f32>,
    image: Option<Tensor>,
    maps: Vec<Tensor>,
}

async fn verify(report: &mut Report<'_>, device: &Device, bases: Option<&Path>) -> Result<()> {
    let dir = report.golden.dir.clone();
    let source = if dir.join("names.json").is_file() { base(&dir, bases)? } else { Checkpoint::open(&dir)? };
    stored(report, &source)?;
    let model = Model::load(&source, device, &Run::default()).await?;
    if dir.join("tokenizer_cases.json").is_file() {
        tokenizer(report, &dir, &model)?;
    }
    let cases = report.golden.cases.clone();
    let mut seen = HashMap::new();
    for (id, file) in cases["images"].as_object().into_iter().flatten() {
        let path = dir.join(file.as_str().unwrap_or_default());
        let looked = look(report, &model, id, &path, bases).await.at(id)?;
        seen.insert(id.clone(), looked);
    }
    for case in cases["cases"].as_array().into_iter().flatten() {
        let id = case["id"].as_str().unwrap_or_default();
        let looked = case["image"].as_str().and_then(|i| seen.get(i));
        answer(report, &model, case, looked, &cases["eos_token_id"]).await.at(id)?;
    }
    Ok(())
}

/// A folder that takes its weights from a base: the image encoder's where its configuration has one, else the language
/// model's.
fn base(dir: &Path, bases: Option<&Path>) -> Result<Checkpoint> {
    if read_json(&dir.join("config.json"))?.get("perceiver_cfg").is_some() {
        Checkpoint::dinov2s(dir, bases)
    } else {
        Checkpoint::smollm2(dir, bases)
    }
}

/// Dequantised slices as stored, before rows are put into another order.
fn stored(report: &mut Report<'_>, source: &dyn Source) -> Result<()> {
    let names: Vec<String> = report.golden.names().into_iter().filter(|n| n.starts_with("dequant/")).collect();
    for name in names {
        let file_name = name.trim_start_matches("dequant/");
        let official = crate::pack::from_llama_cpp(file_name);
        let info = source
            .info(&official)
            .ok_or_else(|| Error::new(Code::PackInvalid, "the tensor is missing").at(&official))?;
        let mut values = vec![0.0; info.shape.iter().product()];
        crate::tensor::blocks::decode(info.dtype, &source.read(&official)?, &mut values);
        report.tensor(&name, &Numbers::f32(&info.shape, &values), true)?;
    }
    Ok(())
}

/// Strings to ids and back.
fn tokenizer(report: &mut Report<'_>, dir: &Path, model: &Model) -> Result<()> {
    let book = read_json(&dir.join("tokenizer_cases.json"))?;
    let tokens = model.tokens()?;
    let mut bad = Vec::new();
    let (mut encoded, mut decoded) = (0, 0);
    for case in book["encode"].as_array().into_iter().flatten() {
        let text = case["text"].as_str().unwrap_or_default();
        let ids = tokens.encode(text)?;
        encoded += 1;
        if json!(ids) != case["ids"] || json!(tokens.decode(&ids)?) != case["back"] {
            bad.push(text.to_owned());
        }
    }
    for case in book["decode"].as_array().into_iter().flatten() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap_or_default();
        decoded += 1;
        if json!(tokens.decode(&ids)?) != case["text"] {
            bad.push(format!("{ids:?}"));
        }
    }
    let text = if bad.is_empty() {
        format!("{encoded} strings and {decoded} id lists equal (host)")
    } else {
        format!("differ: {bad:?}")
    };
    report.line(bad.is_empty(), "tokenizer_cases", &text);
    Ok(())
}

/// Copies of stage tensors, brought into the goldens' form.
async fn compare_taps(report: &mut Report<'_>, device: &Device, prefix: &str, taps: &[Tap]) -> Result<()> {
    for tap in taps {
        let shape = tap.tensor.shape();
        let name = format!("{prefix}/{}", tap.name);
        let numbers = if tap.tensor.dtype() == crate::tensor::DType::U32 {
            let ids = device.read_u32(&[&tap.tensor]).await?.remove(0);
            Numbers::integers(shape, ids.iter().map(|i| *i as usize))
        } else {
            let values = device.read_f32(&[&tap.tensor]).await?.remove(0);
            let cols = tap.tensor.cols();
            let batch = match tap.form {
                TapForm::Rows => 0,
                TapForm::ChannelsFirst => 1,
                TapForm::BatchChannelsFirst { batch } => batch,
            };
            let shown = if batch == 0 { values } else { channels_first(&values, batch, cols) };
            Numbers::f32(shape, &shown)
        };
        report.tensor(&name, &numbers, false)?;
    }
    Ok(())
}

fn channels_first(x: &[f32], batch: usize, cols: usize) -> Vec<f32> {
    let rows = x.len() / batch / cols;
    let mut out = Vec::with_capacity(x.len());
    for map in x.chunks_exact(rows * cols) {
        for c in 0..cols {
            out.extend(map.iter().skip(c).step_by(cols));
        }
    }
    out
}

async fn look(
    report: &mut Report<'_>,
    model: &Rc<Model>,
    id: &str,
    path: &Path,
    bases: Option<&Path>,
) -> Result<Looked> {
    let device = model.device().clone();
    let rgb = preprocess::decode(&read(path)?)?;
    let side = model.config().image_size;
    let resized = preprocess::resize_bicubic(&rgb, side);
    let bytes = resized.data.iter().map(|b| usize::from(*b));
    report.tensor(&format!("{id}/pre.resized"), &Numbers::integers(&[side, side, 3], bytes), true)?;
    let pixels = preprocess::normalise(&resized);
    report.tensor(&format!("{id}/pre.pixels"), &Numbers::f32(&[3, side, side], &pixels), true)?;
    let mut given = HashMap::new();
    let top = format!("{id}/det.topk");
    if report.golden.manifest["tensors"][&top].get("near_tie").is_some() {
        let ids: Vec<u32> = report.golden.get(&top)?.values.iter().map(|v| *v as u32).collect();
        given.insert("det.topk".to_owned(), device.tensor_u32("det.topk", &[ids.len()], &ids)?);
    }
    let vision = model.plan_vision(true, given)?;
    device.write_f32(&vision.pixels, 0, &pixels)?;
    vision.compiled.run(&Run::default()).await?;
    compare_taps(report, &device, id, vision.compiled.plan().taps()).await?;
    let final_norm = format!("{id}/vis.final");
    if report.golden.manifest["tensors"].get(&final_norm).is_some() {
        final_layer_norm(report, model, &final_norm, vision.compiled.plan().taps(), bases).await?;
    }
    let (mut boxes, mut scores) = (Vec::new(), Vec::new());
    if let Some(p) = &vision.seen.proposals {
        let mut numbers = device.read_f32(&[&p.boxes, &p.scores]).await?;
        scores = numbers.pop().unwrap_or_default();
        boxes = numbers.pop().unwrap_or_default().as_chunks::<4>().0.to_vec();
    }
    Ok(Looked { boxes, scores, image: vision.seen.image.clone(), maps: vision.seen.maps.clone() })
}

/// The encoder's final norm, which no stage reads (O-2) but the golden of the bare encoder holds.
async fn final_layer_norm(
    report: &mut Report<'_>,
    model: &Model,
    name: &str,
    taps: &[Tap],
    bases: Option<&Path>,
) -> Result<()> {
    let device = model.device();
    let c = model.config();
    let last = format!("vis.h{}", c.vision.num_hidden_layers);
    let tap = taps.iter().find(|t| t.name == last).ok_or_else(|| Error::internal("no last state"))?;
    let source = base(&report.golden.dir, bases)?;
    let vector = |tail: &str| -> Result<Tensor> {
        let name = format!("perceiver.vis_encoder.layernorm.{tail}");
        let info =
            source.info(&name).ok_or_else(|| Error::new(Code::PackInvalid, "the tensor is missing").at(&name))?;
        device.tensor(&name, &info.shape, info.dtype, &source.read(&name)?)
    };
    let mut p = crate::tensor::Plan::new(device, true);
    let x = p.resident(&tap.tensor);
    let y =
        crate::tensor::ops::layer_norm(&mut p, x, None, &vector("weight")?, &vector("bias")?, c.vision.layer_norm_eps)?;
    p.tap("vis.final", y, TapForm::Rows)?;
    let compiled = p.compile()?;
    compiled.run(&Run::default()).await?;
    let values = device.read_f32(&[&compiled.plan().taps()[0].tensor]).await?.remove(0);
    report.tensor(name, &Numbers::f32(tap.tensor.shape(), &values), false)
}

fn list<T: serde::de::DeserializeOwned>(v: &Value) -> Vec<T> {
    serde_json::from_value(v.clone()).unwrap_or_default()
}

async fn answer(
    report: &mut Report<'_>,
    model: &Rc<Model>,
    case: &Value,
    looked: Option<&Looked>,
    eos: &Value,
) -> Result<()> {
    let id = case["id"].as_str().unwrap_or_default();
    let device = model.device().clone();
    let mut rows: Option<Vec<Row>> = None;
    let mut keep = None;
    let mut num_regions = 0;
    if let Some(seen) = looked.filter(|s| !s.boxes.is_empty()) {
        let selected = choose(report, model, case, seen)?;
        num_regions = selected.boxes.len();
        let (plan, tokens) = photo_tokens_plan(model, &seen.maps, &selected.boxes, true)?;
        let compiled = plan.compile()?;
        compiled.run(&Run::default()).await?;
        compare_taps(report, &device, id, compiled.plan().taps()).await?;
        if case.get("input_ids").is_some() {
            let (known, special) = (model.tokens()?, model.special()?);
            let ids = prompt_ids(report, model, known, case)?;
            let expanded =
                prompt::expand(&ids, model.config().image_tokens(), num_regions, &selected.matches, special)?;
            report.host_result(case, "expanded_ids", json!(expanded.ids));
            rows = Some(expanded.rows);
        }
        keep = Some(tokens);
    } else if case.get("input_ids").is_some() {
        let ids = prompt_ids(report, model, model.tokens()?, case)?;
        rows = Some(ids.into_iter().map(Row::Token).collect());
    }
    report.host_result(case, "num_regions", json!(num_regions));
    let Some(rows) = rows else { return Ok(()) };
    let mut text = Text::new(model)?.tapped();
    let max = usize::try_from(case["max_new_tokens"].as_u64().unwrap_or(0)).unwrap_or(0);
    if max == 0 {
        let e = Error::new(Code::PackInvalid, "the case asks for no token");
        return Err(e.expected("max_new_tokens of 1 or more", &case["max_new_tokens"]));
    }
    let from = Sources { image: looked.and_then(|s| s.image.as_ref()), regions: keep.as_ref() };
    text.read(&rows, max, from, Ending::Greedy, &Run::default()).await?;
    let taps: Vec<Tap> = text.taps().cloned().collect();
    compare_taps(report, &device, id, &taps).await?;
    let logits = text.logits().await?;
    report.tensor(&format!("{id}/llm.logits"), &Numbers::f32(&[logits.len()], &logits), false)?;
    let stops: Vec<u32> = match case.get("eos_token_id") {
        Some(ids) => list(ids),
        None => match eos {
            Value::Null => model.config().llm.eos_token_id.to_vec(),
            ids => list(ids),
        },
    };
    let mut tokens = Vec::new();
    let mut greedy = Sampler::new(0.0, 0)?;
    text.generate(&mut greedy, max, &Run::default(), &mut |token| {
        tokens.push(token);
        Ok(!stops.contains(&token))
    })
    .await?;
    // the steps past a stop token, where a device ran ahead, have overwritten the logits: the last row is read again
    let mut all = rows;
    all.extend(tokens[..tokens.len() - 1].iter().map(|t| Row::Token(*t)));
    text.read(&all, 1, from, Ending::Greedy, &Run::default()).await?;
    let last = text.logits().await?;
    report.tensor(&format!("{id}/llm.logits_last"), &Numbers::f32(&[last.len()], &last), false)?;
    report.result(case, "tokens", json!(tokens));
    if case["expect"].get("text").is_some() {
        report.result(case, "text", json!(answer_text(model.tokens()?, &tokens, &stops)?));
    }
    Ok(())
}

/// Selection, from the golden boxes where the folder says so.
fn choose(report: &mut Report<'_>, model: &Model, case: &Value, seen: &Looked) -> Result<Selected> {
    let c = model.config();
    let (mut boxes, mut scores) = (seen.boxes.clone(), seen.scores.clone());
    if let [b, s] = list::<String>(&case["given"]).as_slice() {
        boxes = report.golden.get(b)?.to_f32().as_chunks::<4>().0.to_vec();
        scores = report.golden.get(s)?.to_f32();
    }
    let user: Vec<[f32; 4]> = list(&case["refer_boxes"]);
    let rules = Rules {
        nms: c.nms_thres,
        score: case["box_score_thres"].as_f64().map_or(c.box_score_thres, |v| v as f32),
        max: c.max_region_num,
        shuffle_seed: case["shuffle_seed"].as_u64(),
    };
    let s = select(&boxes, &scores, &user, &rules)?;
    let id = case["id"].as_str().unwrap_or_default();
    let n = s.index.len();
    report.tensor(&format!("{id}/sel.index"), &Numbers::integers(&[n], s.index.iter().copied()), true)?;
    report.tensor(
        &format!("{id}/sel.match"),
        &Numbers::integers(&[s.matches.len()], s.matches.iter().copied()),
        true,
    )?;
    // these are the device's numbers, only moved
    report.tensor(&format!("{id}/sel.boxes"), &Numbers::f32(&[n, 4], s.boxes.as_flattened()), false)?;
    report.tensor(&format!("{id}/sel.scores"), &Numbers::f32(&[n], &s.scores), false)?;
    report.host_result(case, "region_index", json!(s.index));
    report.host_result(case, "match", json!(s.matches));
    Ok(s)
}

/// The prompt's ids, from its turns, which must be the golden ones.
fn prompt_ids(report: &mut Report<'_>, model: &Model, tokens: &Tokens, case: &Value) -> Result<Vec<u32>> {
    let turns: Vec<Vec<Part>> = list::<String>(&case["turns"]).into_iter().map(|t| vec![Part::template(t)]).collect();
    let template = model.config().chat_template;
    let parts = if case.get("image").is_some() {
        prompt::build(template, &turns)
    } else {
        prompt::build_text_only(template, &turns)
    };
    let ids = tokens.encode_template(&parts)?;
    let same = json!(ids) == case["input_ids"];
    let id = case["id"].as_str().unwrap_or_default();
    report.line(
        same,
        &format!("{id}.input_ids"),
        if same { "equal (host)" } else { "differ from the turns' own tokenisation" },
    );
    Ok(ids)
}

/// An answer as text, special tokens spelled out, the stop token left out.
fn answer_text(tokens: &Tokens, ids: &[u32], stops: &[u32]) -> Result<String> {
    tokens.decode(without_stop(ids, stops))
}
