//! `bench`: what every stage costs, in time, arithmetic and bytes.
//!
//! A picture that is made here stands for the photo, so that the numbers of two machines speak of the same work.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Value, json};

use super::args::Bench;
use super::engine::{self, Opened, with_run};
use super::info;
use super::out::{Aside, Out};
use crate::error::{Error, Result};
use crate::groma::decoder::Ending;
use crate::groma::preprocess::Rgb;
use crate::groma::prompt::{self, Row, Turn};
use crate::groma::sample::Sampler;
use crate::groma::select;
use crate::session::{Model, Photo, Request, Sources, Task, Text, photo_tokens_plan};
use crate::tensor::Plan;
use crate::tensor::plan::{Cancel, Compiled, Run, Step};

/// Decoded tokens that warm up and are not counted.
const FIRST_TOKENS: usize = 8;

/// A stage and how long each of its runs took.
#[derive(Debug, Default)]
struct Stage {
    name: String,
    ms: Vec<f64>,
    flops: u64,
    bytes: u64,
}

/// Stages in the order of their first run.
#[derive(Debug, Default)]
struct Stages(Vec<Stage>);

impl Stages {
    fn named(&mut self, name: &str) -> &mut Stage {
        let at = self.0.iter().position(|s| s.name == name).unwrap_or_else(|| {
            self.0.push(Stage { name: name.to_owned(), ..Stage::default() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    /// A run of a plan: each of its stages takes what passed between the steps that the device told of.
    fn add(&mut self, plan: &Plan, ticks: &[(usize, f64)]) {
        let mut ms: HashMap<&str, f64> = HashMap::new();
        let (mut done, mut time) = (0, 0.0);
        for &(to, at) in ticks {
            if let Some(step) = plan.steps().get(to.saturating_sub(1)).filter(|_| to > done) {
                *ms.entry(stage_of(step)).or_default() += at - time;
                (done, time) = (to, at);
            }
        }
        for step in plan.steps() {
            let stage = self.named(stage_of(step));
            if let Some(ms) = ms.remove(stage.name.as_str()) {
                // The first step of a stage in this run begins its sums anew.
                stage.ms.push(ms);
                (stage.flops, stage.bytes) = (0, 0);
            }
            stage.flops += step.op.flops(plan);
            stage.bytes += step.op.weight_bytes();
        }
    }

    fn json(&self) -> Value {
        let one = |s: &Stage| {
            let mut ms = s.ms.clone();
            ms.sort_by(f64::total_cmp);
            let (median, min) = (ms.get(ms.len() / 2), ms.first());
            json!({
                "name": s.name, "ms": { "median": median, "min": min, "runs": ms.len() },
                "flops": s.flops, "bytes": s.bytes, "floor_ms": null, "counters": null,
            })
        };
        self.0.iter().map(one).collect()
    }
}

/// `encoder.3` belongs to the encoder.
fn stage_of(step: &Step) -> &str {
    step.label.split('.').next().unwrap_or_default()
}

/// Runs a plan and remembers when each of its steps was done.
async fn timed(compiled: &Compiled, cancel: &Cancel, stages: &mut Stages) -> Result<()> {
    let (start, ticks) = (Instant::now(), RefCell::new(Vec::new()));
    let tick = |done, _| ticks.borrow_mut().push((done, milliseconds(start)));
    let mut run = Run::default();
    run.cancel = cancel.clone();
    run.progress = Some(&tick);
    compiled.run(&run).await?;
    ticks.borrow_mut().push((compiled.plan().steps().len(), milliseconds(start)));
    stages.add(compiled.plan(), &ticks.borrow());
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A picture with edges and gradients of every direction.
fn picture(side: usize) -> Result<Rgb> {
    let pixel = |i: usize| {
        let (x, y) = (i % side * 512 / side, i / side * 512 / side);
        let ring = ((x * x + y * y) / 900 % 2 * 90) as u8;
        [(x / 2) as u8 ^ ring, (y / 2) as u8, ((x + y) / 4) as u8 ^ ring]
    };
    Rgb::new(side, side, (0..side * side).flat_map(pixel).collect())
}

/// Measures.
pub(super) async fn bench(args: &Bench, cancel: &Cancel) -> Result<ExitCode> {
    let aside = Aside::new(args.output.quiet);
    let model = engine::load(&args.engine, &aside, cancel).await?;
    let rgb = picture(args.side.unwrap_or(model.config().image_size))?;
    let mut stages = Stages::default();
    aside.stage("measuring");
    let decode = stretch(&model, &rgb, args, cancel, &aside, &mut stages).await?;
    let second = second_question(&model, &rgb, &aside, cancel).await?;
    aside.clear();
    let report = json!({
        "schema": 1,
        "commit": option_env!("GROMA_COMMIT"),
        "pack": pack(args)?,
        "device": info::describe(model.device()),
        "stages": stages.json(),
        "decode": decode,
        "second_question": second,
        "memory": { "weights": model.weights().bytes(), "kv": kv_bytes(&model), "largest_activation": largest(&model)?, "peak": peak() },
    });
    let mut out = Out::stdout();
    if args.output.json {
        out.json(&report)?
    } else {
        out.say(&text(&report))?
    }
    Ok(ExitCode::SUCCESS)
}

/// All stages from pixels to tokens, one after the other, `args.runs` times and once to warm up.
async fn stretch(
    model: &Rc<Model>,
    rgb: &Rgb,
    args: &Bench,
    cancel: &Cancel,
    aside: &Aside,
    stages: &mut Stages,
) -> Result<Value> {
    let device = model.device();
    let vision = model.plan_vision(false, HashMap::new())?;
    let none = || Error::internal("bench needs a whole model");
    let proposals = vision.seen.proposals.as_ref().ok_or_else(none)?;
    let mut decode = Value::Null;
    for round in 0..=args.runs {
        aside.progress(round, args.runs + 1);
        let mut here = Stages::default();
        let start = Instant::now();
        let pixels = model.pixels(rgb);
        here.named("preprocess").ms.push(milliseconds(start));
        device.write_f32(&vision.pixels, 0, &pixels)?;
        timed(&vision.compiled, cancel, &mut here).await?;
        let start = Instant::now();
        let read = device.read_f32(&[&proposals.boxes, &proposals.scores]).await?;
        let c = model.config();
        let rules =
            select::Rules { nms: c.nms_thres, score: c.box_score_thres, max: c.max_region_num, shuffle_seed: None };
        let selected = select::select(read[0].as_chunks().0, &read[1], &[], &rules)?;
        here.named("select").ms.push(milliseconds(start));
        let (plan, regions) = photo_tokens_plan(model, &vision.seen.maps, &selected.boxes, false)?;
        timed(&plan.compile()?, cancel, &mut here).await?;
        let rows = rows(model, prompt::describe(), selected.boxes.len())?;
        let sources = Sources { image: vision.seen.image.as_ref(), regions: Some(&regions) };
        let mut text = Text::new(model)?;
        let start = Instant::now();
        with_run(aside, cancel, async |run| text.read(&rows, args.tokens, sources, Ending::Greedy, run).await).await?;
        here.named("prefill").ms.push(milliseconds(start));
        let per_token = tokens(&mut text, args.tokens, aside, cancel).await?;
        here.named("decode_token").ms.push(per_token);
        decode = decode_json(model, &mut text, args.tokens)?;
        if round > 0 {
            stages.take(here);
        }
    }
    Ok(decode)
}

impl Stages {
    /// Adds another round's runs.
    fn take(&mut self, other: Stages) {
        for stage in other.0 {
            let mine = self.named(&stage.name);
            mine.ms.extend(stage.ms);
            (mine.flops, mine.bytes) = (stage.flops, stage.bytes);
        }
    }
}

/// Milliseconds a token, after the first few; stop tokens are ignored.
async fn tokens(text: &mut Text, count: usize, aside: &Aside, cancel: &Cancel) -> Result<f64> {
    let mut sampler = Sampler::new(0.0, 0)?;
    let mut at: Vec<Instant> = Vec::new();
    let mut on = |_| {
        at.push(Instant::now());
        Ok(true)
    };
    with_run(aside, cancel, async |run| text.generate(&mut sampler, count, run, &mut on).await).await?;
    let first = FIRST_TOKENS.min(at.len().saturating_sub(1) / 2);
    match (at.get(first), at.last()) {
        (Some(from), Some(to)) if at.len() > first + 1 => {
            Ok(to.duration_since(*from).as_secs_f64() * 1e3 / (at.len() - 1 - first) as f64)
        }
        _ => Ok(f64::NAN),
    }
}

fn rows(model: &Model, turn: Turn, regions: usize) -> Result<Vec<Row>> {
    let ids = model.tokens()?.encode_template(&prompt::build(model.config().chat_template, &[turn.parts]))?;
    Ok(prompt::expand(&ids, model.config().image_tokens(), regions, &[], model.special()?)?.rows)
}

fn decode_json(model: &Model, text: &mut Text, count: usize) -> Result<Value> {
    let plan = text.step(Ending::Greedy)?.plan();
    let in_layer = |s: &&Step| s.label.strip_prefix("decoder.").is_some_and(|n| n.parse::<usize>().is_ok());
    let layers = plan.steps().iter().filter(in_layer).count();
    let bytes: u64 = plan.steps().iter().map(|s| s.op.weight_bytes()).sum();
    Ok(json!({
        "tokens": count,
        "layers": model.config().llm.num_hidden_layers,
        "dispatches_in_layers": layers,
        "dispatches_other": plan.steps().len() - layers,
        "bytes_per_token": bytes,
        "ideal_bytes_per_token": bytes,
        "counters": null,
    }))
}

/// What a second question about the same photo reads again.
async fn second_question(model: &Rc<Model>, rgb: &Rgb, aside: &Aside, cancel: &Cancel) -> Result<Value> {
    with_run(aside, cancel, async |run| {
        let mut photo = Photo::open(model, rgb, run).await?;
        let ask = |question: &str| {
            let task = Task::Ask { question: question.to_owned(), grounded: true, refer: Vec::new() };
            Request { task, max_tokens: 4, temperature: 0.0, seed: 0 }
        };
        photo.ask(&ask("What is this?"), run, &mut |_| {}).await?;
        let t = photo.ask(&ask("And what is beside it?"), run, &mut |_| {}).await?.timing;
        Ok(json!({ "prompt": t.prompt, "reused": t.reused, "prefilled": t.prefilled }))
    })
    .await
}

fn pack(args: &Bench) -> Result<Value> {
    Ok(match engine::open(args.engine.model.as_deref())? {
        Opened::Checkpoint(_) => {
            json!({ "name": engine::find(args.engine.model.as_deref())?, "sha256": null, "quantisation": null })
        }
        Opened::Pack(p) => {
            let m = p.index().manifest();
            let hashes: Vec<&str> = m.files.iter().map(|f| f.sha256.as_str()).collect();
            json!({ "name": m.name, "sha256": hashes, "quantisation": m.quantisation })
        }
    })
}

/// Bytes of keys and values of a full context.
fn kv_bytes(model: &Model) -> usize {
    let l = &model.config().llm;
    2 * 4 * l.num_hidden_layers * l.kv_heads() * l.head_width() * model.context_length()
}

/// Bytes of the largest value of the plan from pixels to regions that does not outlive it.
fn largest(model: &Model) -> Result<usize> {
    let vision = model.plan_vision(false, HashMap::new())?;
    let values = vision.compiled.plan().values().iter().filter(|v| v.resident.is_none());
    Ok(values.map(|v| 4 * v.shape.iter().product::<usize>()).max().unwrap_or(0))
}

/// The most memory that this process ever had, where the system says so.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The same for people.
fn text(report: &Value) -> String {
    let mut out = format!("{:<16}{:>12}{:>12}{:>12}{:>12}\n", "stage", "median ms", "min ms", "GFLOP", "MB");
    for s in report["stages"].as_array().into_iter().flatten() {
        let (name, number) = (s["name"].as_str().unwrap_or_default(), |v: &Value| v.as_f64().unwrap_or(f64::NAN));
        let (median, min) = (number(&s["ms"]["median"]), number(&s["ms"]["min"]));
        let (flops, bytes) = (number(&s["flops"]) / 1e9, number(&s["bytes"]) / 1e6);
        out.push_str(&format!("{name:<16}{median:>12.2}{min:>12.2}{flops:>12.3}{bytes:>12.2}\n"));
    }
    for part in ["decode", "second_question", "memory"] {
        out.push_str(&format!("{part}: {}\n", report[part]));
    }
    out
}
