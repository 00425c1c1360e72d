//! The shapes that cross. Their TypeScript is `www/engine/types.ts`.

use serde::{Deserialize, Serialize};
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::prelude::*;

use crate::error::{Code, Error, Result};
use crate::groma::grounding::{Event, Kind};
use crate::session;
use crate::tensor::gpu::{Options, Want};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
import type { AnswerResult, Debug, Region, TaskRequest } from "../engine/types.js";
"#;

#[wasm_bindgen]
extern "C" {
    /// A `Debug`.
    #[wasm_bindgen(typescript_type = "Debug")]
    #[derive(Debug)]
    pub type JsDebug;

    /// A `TaskRequest`.
    #[wasm_bindgen(typescript_type = "TaskRequest")]
    #[derive(Debug)]
    pub type JsRequest;

    /// An `AnswerResult`.
    #[wasm_bindgen(typescript_type = "AnswerResult")]
    #[derive(Debug)]
    pub type JsAnswer;

    /// A `Region[]`.
    #[wasm_bindgen(typescript_type = "Region[]")]
    #[derive(Debug)]
    pub type JsRegions;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestIn {
    task: TaskIn,
    max_tokens: usize,
    temperature: f64,
    seed: f64,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum TaskIn {
    Ask { question: String, grounded: bool, refer: Vec<[f32; 4]> },
    Detect { label: String },
    Locate { phrase: String },
    Caption { r#box: [f32; 4], long: bool },
    Describe,
}

#[derive(Clone, Serialize)]
struct RegionOut {
    id: usize,
    r#box: [f32; 4],
    score: f32,
}

#[derive(Serialize)]
struct SegmentOut<'a> {
    index: usize,
    kind: Kind,
    text: &'a str,
    delta: &'a str,
    closed: bool,
    regions: Vec<RegionOut>,
}

#[derive(Serialize)]
struct AnswerOut<'a> {
    text: &'a str,
    segments: Vec<SegmentOut<'a>>,
    regions: Vec<RegionOut>,
    tokens: &'a [u32],
    stopped: &'a session::Stopped,
    timing: &'a session::Timing,
}

impl From<&session::Region> for RegionOut {
    fn from(r: &session::Region) -> Self {
        Self { id: r.id, r#box: r.bbox, score: r.score }
    }
}

/// What of a page's `Debug` is the engine's business.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Debug {
    pub(super) numerics: Option<String>,
    pub(super) gpu: DebugGpu,
}

/// Fall-backs of the GPU that are forced.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DebugGpu {
    default_limits: bool,
    memory: Option<f64>,
    binding: Option<f64>,
    kernels: Option<String>,
}

impl DebugGpu {
    #[allow(clippy::cast_sign_loss, reason = "a negative number becomes 0")]
    pub(super) fn options(&self) -> Options {
        Options {
            adapter: Want::Any,
            default_limits: self.default_limits,
            // the worker itself makes readbacks slow: www/worker/fault.ts
            map_latency_ms: 0,
            memory: self.memory.map(|bytes| bytes as u64),
            binding: self.binding.map(|bytes| bytes as u64),
            software_kernels: self.kernels.as_deref().map(|kernels| kernels == "software"),
        }
    }
}

/// Debug switches from the page.
pub(super) fn debug(value: JsDebug) -> Result<Debug> {
    serde_wasm_bindgen::from_value(value.into())
        .map_err(|e| Error::new(Code::Usage, format!("not debug switches: {e}")))
}

/// A request from the page.
pub(super) fn request(value: JsRequest) -> Result<session::Request> {
    let raw: RequestIn = serde_wasm_bindgen::from_value(value.into())
        .map_err(|e| Error::new(Code::Usage, format!("not a request: {e}")))?;
    let task = match raw.task {
        TaskIn::Ask { question, grounded, refer } => session::Task::Ask { question, grounded, refer },
        TaskIn::Detect { label } => session::Task::Detect(label),
        TaskIn::Locate { phrase } => session::Task::Locate(phrase),
        TaskIn::Caption { r#box, long } => session::Task::Caption { bbox: r#box, long },
        TaskIn::Describe => session::Task::Describe,
    };
    #[allow(clippy::cast_sign_loss, reason = "a negative seed becomes 0")]
    Ok(session::Request { task, max_tokens: raw.max_tokens, temperature: raw.temperature, seed: raw.seed as u64 })
}

/// Regions for the page.
pub(super) fn regions(regions: &[session::Region]) -> Result<JsRegions> {
    let out: Vec<RegionOut> = regions.iter().map(RegionOut::from).collect();
    Ok(value(&out)?.unchecked_into())
}

/// A segment as it grows.
pub(super) fn segment(event: &Event, known: &[session::Region]) -> Result<JsValue> {
    value(&SegmentOut {
        index: event.index,
        kind: event.kind,
        text: &event.text,
        delta: &event.delta,
        closed: event.closed,
        regions: resolve(&event.regions, known),
    })
}

/// A whole answer.
pub(super) fn answer(answer: &session::Answer) -> Result<JsAnswer> {
    let segments = answer
        .segments
        .iter()
        .map(|s| SegmentOut {
            index: s.index,
            kind: s.kind,
            text: &s.text,
            delta: "",
            closed: s.closed,
            regions: resolve(&s.regions, &answer.regions),
        })
        .collect();
    let out = AnswerOut {
        text: &answer.text,
        segments,
        regions: answer.regions.iter().map(RegionOut::from).collect(),
        tokens: &answer.tokens,
        stopped: &answer.stopped,
        timing: &answer.timing,
    };
    Ok(value(&out)?.unchecked_into())
}

fn resolve(ids: &[usize], known: &[session::Region]) -> Vec<RegionOut> {
    ids.iter().filter_map(|id| known.iter().find(|r| r.id == *id)).map(RegionOut::from).collect()
}

fn value(v: &impl Serialize) -> Result<JsValue> {
    v.serialize(&Serializer::json_compatible()).map_err(|e| Error::internal(format!("can't cross to JavaScript: {e}")))
}
