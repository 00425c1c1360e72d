//! One photo, many questions: what is kept, what is computed again.
//!
//! | kept with | until | what |
//! |---|---|---|
//! | the photo | it is closed | image tokens, fused region maps, proposals |
//! | a set of drawn boxes | it changes | selection, region tokens |
//! | the conversation | its prompt differs | the cache, up to the longest common prefix |
//!
//! Must never know a file format or a front.

pub mod bench;
mod model;
mod photo;
mod text;

use serde::Serialize;

use crate::groma::grounding::Segment;

pub use model::Model;
pub(crate) use photo::plan_tokens as photo_tokens_plan;
pub use photo::{Photo, without_stop};
pub use text::{Sources, Text};

/// A numbered box of a photo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Region {
    /// Its number: `<r3>` is 3.
    pub id: usize,
    /// `[x0, y0, x1, y1]` in pixels of the photo.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Fused score, 0 to 1; a drawn box has 1.
    pub score: f32,
}

/// What is asked. Boxes are `[x0, y0, x1, y1]` in pixels of the photo.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// A question; `[1]`, `[2]` in it stand for the boxes of `refer`.
    Ask {
        /// The question.
        question: String,
        /// Whether the answer ties its phrases to regions.
        grounded: bool,
        /// Boxes that it speaks of.
        refer: Vec<[f32; 4]>,
    },
    /// Every object of a kind.
    Detect(String),
    /// The one that a phrase describes.
    Locate(String),
    /// What is in a box.
    Caption {
        /// The box.
        bbox: [f32; 4],
        /// In detail.
        long: bool,
    },
    /// A grounded description of the whole photo.
    Describe,
}

/// A task and how its answer is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked.
    pub task: Task,
    /// Tokens at most.
    pub max_tokens: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// Of the sampler.
    pub seed: u64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stopped {
    /// The model said so.
    End,
    /// The limit of tokens or the context was reached.
    Length,
    /// On request; what was said so far stands.
    Aborted,
}

/// Where the time went, milliseconds, and what was reused.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Photo to regions (once a photo).
    pub vision_ms: f64,
    /// Region tokens of this question's boxes, also where they were asked for before it (0 where they were kept).
    pub regions_ms: f64,
    /// Prompt.
    pub prefill_ms: f64,
    /// All tokens.
    pub decode_ms: f64,
    /// Positions of the prompt.
    pub prompt: usize,
    /// Of them in the cache already.
    pub reused: usize,
    /// Of them computed for this question.
    pub prefilled: usize,
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// All segments joined.
    pub text: String,
    /// Text, and phrases tied to regions.
    pub segments: Vec<Segment>,
    /// The regions that the answer's numbers speak of.
    pub regions: Vec<Region>,
    /// What the model produced, a stop token included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stopped: Stopped,
    /// Where the time went.
    pub timing: Timing,
}
