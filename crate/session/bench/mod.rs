//! What every stage of a model costs, in time, arithmetic, bytes and what the GPU was asked for: the core of `groma bench`
//! and of `npm run bench`.
//!
//! A picture that is made here stands for the photo, so that the numbers of two machines speak of the same work.

mod stages;

use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use self::stages::{Moment, Stages, Work};
pub use self::stages::{Stage, Times};
use super::photo::rules;
use super::{Model, Photo, Request, Sources, Task, Text, photo_tokens_plan};
use crate::error::{Code, Error, Result};
use crate::groma::decoder::Ending;
use crate::groma::preprocess::{self, Rgb};
use crate::groma::prompt::{self, Row};
use crate::groma::sample::Sampler;
use crate::groma::{encoder, select};
use crate::tensor::gpu::{Counters, lower};
use crate::tensor::plan::{CacheWork, Run, Step};
use crate::tensor::probe::Rates;
use crate::tensor::{Device, Plan, Tensor};

/// Decoded tokens that warm up and are not counted.
const FIRST_TOKENS: usize = 8;
/// Rows of the prompt of a model without eyes.
const PROMPT: usize = 512;

/// The largest side that the image encoder is measured at: nine times the model's own.
const MAX_SIDE: usize = 4096;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Runs of each stage, besides the first, which is not counted.
    pub runs: usize,
    /// Tokens that are decoded.
    pub tokens: usize,
    /// Only the image encoder, for a picture of this many pixels a side.
    pub side: Option<usize>,
    /// What the device can do.
    pub rates: Rates,
    /// The most bytes that the process ever had, where somebody knows it: the CPU device's peak.
    pub process_peak: fn() -> Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order of the pipeline.
    pub stages: Vec<Stage>,
    /// What a token costs; `None` where only the encoder was measured.
    pub decode: Option<Decode>,
    /// What a second question reads again.
    pub second_question: Option<SecondQuestion>,
    /// Bytes.
    pub memory: Memory,
}

/// What a token costs, told by the plan, and what was counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decode {
    /// Tokens that were counted.
    pub tokens: usize,
    /// Layers of the language model.
    pub layers: usize,
    /// Dispatches of one token in all layers.
    pub dispatches_in_layers: usize,
    /// Its other dispatches.
    pub dispatches_other: usize,
    /// Bytes that the kernels read for a token in the middle of the answer.
    pub bytes_per_token: u64,
    /// Bytes that must be read at least: every weight once, every cached key and value once.
    pub ideal_bytes_per_token: u64,
    /// Totals of the counted tokens.
    pub counters: Counters,
}

/// A second question about the same photo.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SecondQuestion {
    /// Rows of its prompt.
    pub prompt: usize,
    /// Of them in the cache already.
    pub reused: usize,
    /// Of them read for it.
    pub prefilled: usize,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// All weights as stored.
    pub weights: u64,
    /// Keys and values, as much as there is room for.
    pub kv: u64,
    /// The largest value between two operations.
    pub largest_activation: u64,
    /// The most that was held at once: of the GPU's buffers, or of the process where it runs on the processor.
    pub peak: Option<u64>,
}

/// A device, in the form of the report; `rates` are limits that were measured.
#[must_use]
pub fn describe(device: &Device, rates: Rates) -> Value {
    let (flops, bytes) = (rates.flops.round(), rates.bytes.round());
    match device {
        Device::Cpu(_) => json!({
            "kind": "cpu", "name": std::env::consts::ARCH, "type": "cpu",
            "limits": {
                "threads": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                "flops_per_second": flops, "bytes_per_second": bytes,
            },
        }),
        Device::Gpu(gpu) => {
            let i = gpu.info();
            json!({
                "kind": "gpu", "name": i.name, "type": i.kind,
                "limits": {
                    "binding": i.binding, "buffer": i.buffer, "storage_buffers": i.storage_buffers,
                    "workgroup_bytes": i.workgroup_bytes, "workgroup_threads": i.workgroup_threads,
                    "flops_per_second": flops, "bytes_per_second": bytes,
                },
            })
        }
    }
}

/// The whole object: what was measured, of what, where. `pack` is what the front knows of the files.
///
/// # Errors
/// None that could happen: numbers always have a JSON form.
pub fn report(model: &Model, pack: Value, rates: Rates, measured: &Report) -> Result<Value> {
    let mut all = json!({
        "schema": 1,
        "commit": option_env!("GROMA_COMMIT"),
        "pack": pack,
        "device": describe(model.device(), rates),
    });
    let rest = serde_json::to_value(measured).map_err(|e| Error::internal(e.to_string()))?;
    if let (Some(all), Value::Object(rest)) = (all.as_object_mut(), rest) {
        all.extend(rest);
    }
    Ok(all)
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

/// Measures a model. `on` is told rounds as they end, and how many there are.
///
/// # Errors
/// `usage` for a side that the encoder can't take; the device's own; `aborted`.
pub async fn measure(model: &Rc<Model>, options: &Options, run: &Run<'_>, on: &dyn Fn(usize, usize)) -> Result<Report> {
    if let Device::Gpu(gpu) = model.device() {
        gpu.forget_peak();
    }
    let mut bench = Bench { model, options, run, largest: 0, kv: 0 };
    let mut stages = Stages::new(model.device(), options.rates);
    let mut decode = None;
    for round in 0..=options.runs {
        on(round, options.runs + 1);
        let mut here = Stages::new(model.device(), options.rates);
        if let Some(side) = options.side {
            bench.encoder(side, &mut here).await?;
        } else {
            decode = Some(bench.all(&mut here).await?);
        }
        // the first round makes kernels and fills caches
        if round > 0 {
            stages.take(here);
        }
    }
    let second_question = if options.side.is_some() { None } else { Some(bench.second_question().await?) };
    let peak = match model.device() {
        Device::Gpu(gpu) => Some(gpu.counters().peak_bytes),
        Device::Cpu(_) => (options.process_peak)(),
    };
    let weights = model.weights().bytes() as u64;
    let memory = Memory { weights, kv: bench.kv, largest_activation: bench.largest, peak };
    Ok(Report { stages: stages.done(), decode, second_question, memory })
}

struct Bench<'a> {
    model: &'a Rc<Model>,
    options: &'a Options,
    run: &'a Run<'a>,
    largest: u64,
    kv: u64,
}

/// What the language model is to read, and where its rows lie.
struct Prompt {
    rows: Vec<Row>,
    image: Option<Tensor>,
    regions: Option<Tensor>,
}

impl Prompt {
    fn sources(&self) -> Sources<'_> {
        Sources { image: self.image.as_ref(), regions: self.regions.as_ref() }
    }
}

impl Bench<'_> {
    fn device(&self) -> &Device {
        self.model.device()
    }

    /// Remembers the largest value that lives only within a plan.
    fn look_at(&mut self, plan: &Plan) {
        self.largest = self.largest.max(largest_value(plan));
    }

    /// The image encoder alone, for pictures of another size.
    async fn encoder(&mut self, side: usize, stages: &mut Stages) -> Result<()> {
        let mut config = self.model.config().clone();
        if !self.model.components().encoder {
            return Err(Error::new(Code::PackInvalid, "the model has no image encoder"));
        }
        if side > MAX_SIDE {
            return Err(
                Error::new(Code::Usage, "the picture is too large").expected(format!("at most {MAX_SIDE}"), side)
            );
        }
        if !side.is_multiple_of(config.vision.patch_size) {
            let want = format!("a multiple of {}", config.vision.patch_size);
            return Err(Error::new(Code::Usage, "the picture can't be cut into patches").expected(want, side));
        }
        config.image_size = side;
        let device = self.device().clone();
        let rgb = picture(2 * side)?;
        stages.begin();
        let pixels = preprocess::normalise(&preprocess::resize_bicubic(&rgb, side));
        stages.end("preprocess", Work::bytes(rgb.data.len() + 4 * pixels.len()));
        let pixels = device.tensor_f32("photo.pixels", &[3, side, side], &pixels)?;
        let mut p = Plan::new(&device, false);
        encoder::record(&mut p, &config, self.model.weights(), &pixels)?;
        self.look_at(&p);
        let compiled = p.compile()?;
        stages.begin();
        compiled.run_stages(self.run, &mut |stage| stages.end(stage, Work::of(compiled.plan(), stage))).await
    }

    /// All stages from pixels to tokens.
    async fn all(&mut self, stages: &mut Stages) -> Result<Decode> {
        let prompt = if self.model.components().proposer { self.see(stages).await? } else { self.blind() };
        // what is counted must not depend on how fast this device is
        let mut text = Text::new(self.model)?.with_silence(Duration::MAX);
        let rows = prompt.rows.len();
        let count = self.options.tokens.min(self.model.context_length().saturating_sub(rows));
        stages.begin();
        text.read(&prompt.rows, count, prompt.sources(), Ending::Greedy, self.run).await?;
        text.chosen().await?;
        let began = Moment::now(self.device());
        let plan = text.step(Ending::Greedy)?.plan();
        let times = |s: &Step| if layer(s) { rows as u64 } else { 1 };
        let products: u64 = plan.steps().iter().map(|s| times(s) * s.op.flops(plan)).sum();
        let attention: u64 = (0..rows).map(|past| cache_work(plan, past).flops).sum();
        let read = plan.steps().iter().map(|s| s.op.weight_bytes()).sum();
        stages.end_until(began, "prefill", Work { flops: products + attention, bytes: read });
        self.tokens(&mut text, rows, count, stages).await
    }

    /// From pixels to the prompt's rows.
    async fn see(&mut self, stages: &mut Stages) -> Result<Prompt> {
        let (model, device) = (self.model, self.device().clone());
        let vision = model.vision()?;
        self.look_at(vision.compiled.plan());
        let none = || Error::internal("bench needs a whole model");
        let proposals = vision.seen.proposals.as_ref().ok_or_else(none)?;
        let rgb = picture(model.config().image_size)?;
        stages.begin();
        let pixels = model.pixels(&rgb);
        stages.end("preprocess", Work::bytes(rgb.data.len() + 4 * pixels.len()));
        stages.begin();
        device.write_f32(&vision.pixels, 0, &pixels)?;
        let plan = vision.compiled.plan();
        vision.compiled.run_stages(self.run, &mut |stage| stages.end(stage, Work::of(plan, stage))).await?;
        stages.begin();
        let read = device.read_f32(&[&proposals.boxes, &proposals.scores]).await?;
        let boxes = select::select(read[0].as_chunks().0, &read[1], &[], &rules(model))?.boxes;
        stages.end("select", Work::bytes(20 * read[1].len()));
        stages.begin();
        let (plan, regions) = photo_tokens_plan(model, &vision.seen.maps, &boxes, false)?;
        self.look_at(&plan);
        let compiled = plan.compile()?;
        let plan = compiled.plan();
        compiled.run_stages(self.run, &mut |stage| stages.end(stage, Work::of(plan, stage))).await?;
        stages.begin();
        let rows = self.rows(boxes.len())?;
        stages.end("prompt", Work::bytes(4 * rows.len()));
        Ok(Prompt { rows, image: vision.seen.image.clone(), regions: Some(regions) })
    }

    /// The rows of "Describe this photo.", or as many rows without meaning where there is no tokenizer.
    fn rows(&self, regions: usize) -> Result<Vec<Row>> {
        let c = self.model.config();
        let Ok(special) = self.model.special() else {
            let image = (0..c.image_tokens()).map(|i| Row::Image(i as u32));
            return Ok(words(8)
                .chain(image)
                .chain((0..regions).map(|i| Row::Region(i as u32)))
                .chain(words(24))
                .collect());
        };
        let turn = prompt::describe();
        let ids = self.model.tokens()?.encode_template(&prompt::build(c.chat_template, &[turn.parts]))?;
        Ok(prompt::expand(&ids, c.image_tokens(), regions, &[], special)?.rows)
    }

    /// A prompt for a bare language model.
    fn blind(&self) -> Prompt {
        let rows = PROMPT.min(self.model.context_length() / 2).max(1);
        Prompt { rows: words(rows).collect(), image: None, regions: None }
    }

    /// Greedy tokens after a prompt of `past` rows; stop tokens are ignored.
    async fn tokens(&mut self, text: &mut Text, past: usize, count: usize, stages: &mut Stages) -> Result<Decode> {
        let device = self.device().clone();
        // the device runs ahead by powers of two: so what is counted begins where a run did
        let first = FIRST_TOKENS.min(count / 2).checked_ilog2().map_or(0, |n| 1 << n);
        let mut sampler = Sampler::new(0.0, 0)?;
        let (mut said, mut before) = (0, Moment::now(&device));
        text.generate(&mut sampler, count, self.run, &mut |_| {
            said += 1;
            if said == first {
                before = Moment::now(&device);
            }
            Ok(true)
        })
        .await?;
        let counted = said - first;
        self.kv = text.cache_bytes() as u64;
        for plan in text.plans() {
            self.largest = self.largest.max(largest_value(plan));
        }
        let until = Moment::now(&device);
        let plan = text.step(Ending::Greedy)?.plan();
        let weights: u64 = plan.steps().iter().map(|s| s.op.weight_bytes()).sum();
        let flops: u64 = plan.steps().iter().map(|s| s.op.flops(plan)).sum();
        let cache = cache_work(plan, past + first + counted / 2);
        let n = counted as u64;
        let work = Work { flops: n * (flops + cache.flops), bytes: n * (weights + cache.ideal_bytes) };
        stages.end_between(before, until, "decode", work);
        let (dispatches_in_layers, dispatches_other) = match &device {
            Device::Cpu(_) => (0, 0),
            Device::Gpu(gpu) => {
                let all = lower(plan, gpu.traits())?.dispatches;
                let inside = all.iter().filter(|d| layer(&plan.steps()[d.step])).count();
                (inside, all.len() - inside)
            }
        };
        Ok(Decode {
            tokens: counted,
            layers: self.model.config().llm.num_hidden_layers,
            dispatches_in_layers,
            dispatches_other,
            bytes_per_token: weights + cache.bytes,
            ideal_bytes_per_token: weights + cache.ideal_bytes,
            counters: stages.counters("decode"),
        })
    }

    /// What a second question about the same photo reads again.
    async fn second_question(&self) -> Result<SecondQuestion> {
        if self.model.special().is_ok() {
            let rgb = picture(self.model.config().image_size)?;
            let mut photo = Photo::open(self.model, &rgb, self.run).await?;
            let ask = |question: &str| {
                let task = Task::Ask { question: question.to_owned(), grounded: true, refer: Vec::new() };
                Request { task, max_tokens: 4, temperature: 0.0, seed: 0 }
            };
            photo.ask(&ask("What is this?"), self.run, &mut |_| {}).await?;
            let t = photo.ask(&ask("And what is beside it?"), self.run, &mut |_| {}).await?.timing;
            return Ok(SecondQuestion { prompt: t.prompt, reused: t.reused, prefilled: t.prefilled });
        }
        // without a tokenizer the rows themselves are the questions
        let mut rows = self.blind().rows;
        rows.truncate((self.model.context_length() / 4).clamp(1, 64));
        let mut text = Text::new(self.model)?;
        text.read(&rows, 4, Sources::default(), Ending::Greedy, self.run).await?;
        rows.extend(words(16));
        let prefilled = text.read(&rows, 4, Sources::default(), Ending::Greedy, self.run).await?;
        Ok(SecondQuestion { prompt: rows.len(), reused: rows.len() - prefilled, prefilled })
    }
}

/// Bytes of the largest value that lives only within a plan.
#[must_use]
pub fn largest_value(plan: &Plan) -> u64 {
    let temporary = plan.values().iter().filter(|v| v.resident.is_none());
    temporary.map(|v| 4 * v.shape.iter().product::<usize>() as u64).max().unwrap_or(0)
}

/// What a token's step does with what the cache holds.
fn cache_work(plan: &Plan, past: usize) -> CacheWork {
    plan.steps().iter().map(|s| s.op.cache_work(past)).fold(CacheWork::default(), |a, b| CacheWork {
        flops: a.flops + b.flops,
        ideal_bytes: a.ideal_bytes + b.ideal_bytes,
        bytes: a.bytes + b.bytes,
    })
}

/// Token rows without meaning.
fn words(count: usize) -> impl Iterator<Item = Row> {
    (0..count).map(|i| Row::Token(3 + (i % 8) as u32))
}

/// Whether a step is in one of the language model's layers.
fn layer(step: &Step) -> bool {
    step.label.strip_prefix("decoder.").is_some_and(|n| n.parse::<usize>().is_ok())
}
