//! A photo and the conversation about it.

use std::rc::Rc;

use web_time::Instant;

use super::model::{Model, Seen};
use super::text::{Sources, Text};
use super::{Answer, Region, Request, Stopped, Task, Timing};
use crate::error::{Code, Error, Result};
use crate::groma::decoder::Ending;
use crate::groma::grounding::{self, Event, Parser};
use crate::groma::preprocess::Rgb;
use crate::groma::prompt::{self, Turn};
use crate::groma::region_encoder;
use crate::groma::sample::Sampler;
use crate::groma::select::{Rules, Selected, from_pixels, list, select, to_pixels};
use crate::groma::tokens::Part;
use crate::tensor::plan::{Look, Run, Then};
use crate::tensor::{DType, Plan, Tensor};

/// A photo that was looked at.
#[derive(Debug)]
pub struct Photo {
    model: Rc<Model>,
    width: usize,
    height: usize,
    seen: Seen,
    boxes: Vec<[f32; 4]>,
    scores: Vec<f32>,
    /// The proposer's regions, without drawn boxes.
    own: Selected,
    vision_ms: f64,
    text: Option<Text>,
    chosen: Option<Chosen>,
    turns: Vec<Said>,
    /// The boxes drawn in this conversation, relative, in the order of their first mention.
    drawn: Vec<[f32; 4]>,
}

/// The regions of a set of drawn boxes.
#[derive(Debug)]
struct Chosen {
    drawn: Vec<[f32; 4]>,
    selected: Selected,
    tokens: Tensor,
    /// What choosing them took, milliseconds, until an answer has told it.
    untold_ms: f64,
}

/// A question and its answer.
#[derive(Debug)]
struct Said {
    question: Turn,
    /// As it was said: `<rN>` in it is the N-th of `regions`.
    answer: Vec<Part>,
    /// The boxes that were regions then (cx, cy, w, h).
    regions: Vec<[f32; 4]>,
}

impl Said {
    /// The answer in the numbers of other regions: each `<rN>` becomes the one that overlaps its own most. What was said
    /// stays as it is, so that a region which is gone for a while comes back under its own box.
    fn among(&self, regions: &[[f32; 4]]) -> Vec<Part> {
        let mut answer = self.answer.clone();
        if self.regions != regions {
            prompt::remap_indices(&mut answer, &self.regions, regions);
        }
        answer
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

impl Photo {
    /// Looks at a photo: encoder, bridge, proposer, region maps.
    ///
    /// # Errors
    /// `pack-invalid` where the model lacks a component; `aborted`; the device's own.
    pub async fn open(model: &Rc<Model>, rgb: &Rgb, run: &Run<'_>) -> Result<Self> {
        let start = Instant::now();
        let vision = model.vision()?;
        let device = model.device();
        device.write_f32(&vision.pixels, 0, &model.pixels(rgb))?;
        let (seen, copies) = kept(model, &vision.seen)?;
        let made =
            vision.seen.proposals.as_ref().ok_or_else(|| Error::new(Code::PackInvalid, "the model has no proposer"))?;
        let looks = [Look::all(&made.boxes), Look::all(&made.scores)];
        let mut numbers = vision.compiled.run_then::<f32>(1, Then { copies: &copies, looks: &looks }, run).await?;
        let scores = numbers.pop().unwrap_or_default();
        let boxes: Vec<[f32; 4]> = numbers.pop().unwrap_or_default().as_chunks::<4>().0.to_vec();
        let own = select(&boxes, &scores, &[], &rules(model))?;
        Ok(Self {
            model: model.clone(),
            width: rgb.width,
            height: rgb.height,
            seen,
            boxes,
            scores,
            own,
            vision_ms: ms(start),
            text: None,
            chosen: None,
            turns: Vec::new(),
            drawn: Vec::new(),
        })
    }

    /// Pixels a row of the photo.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of the photo.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The proposer's regions, best first, without drawn boxes.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.shown(&self.own)
    }

    /// The proposer's boxes by other rules than the configuration's: a list may be empty, and longer than a prompt's.
    #[must_use]
    pub fn list(&self, rules: &Rules) -> Vec<Region> {
        self.shown(&list(&self.boxes, &self.scores, rules))
    }

    /// The configuration's rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        rules(&self.model)
    }

    fn shown(&self, selected: &Selected) -> Vec<Region> {
        let all = selected.boxes.iter().zip(&selected.scores).enumerate();
        all.map(|(id, (b, score))| Region { id, bbox: to_pixels(b, self.width, self.height), score: *score }).collect()
    }

    /// Bytes of the conversation's cache of keys and values.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.text.as_ref().map_or(0, Text::cache_bytes)
    }

    /// Begins a new conversation about the same photo.
    pub fn reset(&mut self) {
        self.turns.clear();
        self.drawn.clear();
    }

    /// Takes a question as asked and its answer's tokens as said: for a conversation that goes on after its engine was lost.
    /// Nothing is read until the next question.
    ///
    /// # Errors
    /// As [`Photo::ask`], and `aborted`.
    pub async fn recall(&mut self, task: &Task, tokens: &[u32], run: &Run<'_>) -> Result<()> {
        let question = self.turn(task)?;
        self.choose(run).await?;
        let said = without_stop(tokens, &self.model.config().llm.eos_token_id.to_vec());
        let answer = self.model.tokens()?.parts(said)?;
        self.say(question, answer);
        Ok(())
    }

    /// Takes a question and its answer into the conversation.
    fn say(&mut self, question: Turn, answer: Vec<Part>) {
        let regions = self.chosen.as_ref().map_or_else(Vec::new, |c| c.selected.boxes.clone());
        self.turns.push(Said { question, answer, regions });
    }

    /// The regions that the answer to a task will speak of, drawn boxes included. They are computed now and kept for the
    /// answer, so that whoever shows them has them before its first word.
    ///
    /// # Errors
    /// As [`Photo::ask`], and `aborted`.
    pub async fn regions_for(&mut self, task: &Task, run: &Run<'_>) -> Result<Vec<Region>> {
        self.turn(task)?;
        self.choose(run).await?;
        Ok(self.chosen.as_ref().map_or_else(Vec::new, |c| self.shown(&c.selected)))
    }

    /// Asks; `on` is told every change of a segment. Stopping ends the answer, and what was said stands.
    ///
    /// # Errors
    /// `question-empty`, `box-outside`, `prompt-too-long`, the device's own.
    pub async fn ask(&mut self, request: &Request, run: &Run<'_>, on: &mut dyn FnMut(&Event)) -> Result<Answer> {
        let mut timing = Timing { vision_ms: self.vision_ms, ..Timing::default() };
        let turn = self.turn(&request.task)?;
        let mut sampler = Sampler::new(request.temperature, request.seed)?;
        let stopped_early = |e: Error| if e.code == Code::Aborted { Ok(()) } else { Err(e) };
        if let Err(e) = self.choose(run).await {
            stopped_early(e)?;
            return Ok(self.answer(Vec::new(), Parser::new(0), Stopped::Aborted, timing));
        }
        if let Some(chosen) = &mut self.chosen {
            timing.regions_ms = std::mem::take(&mut chosen.untold_ms);
        }
        let chosen = self.chosen.as_ref().ok_or_else(|| Error::internal("regions were chosen above"))?;
        let regions = chosen.selected.boxes.len();
        let rows = self.rows(&turn, chosen)?;
        let start = Instant::now();
        let model = self.model.clone();
        let text = match &mut self.text {
            Some(text) => text,
            none => none.insert(Text::new(&model)?),
        };
        let ending = if sampler.is_greedy() { Ending::Greedy } else { Ending::Logits };
        let sources = Sources { image: self.seen.image.as_ref(), regions: Some(&chosen.tokens) };
        timing.prompt = rows.len();
        let mut parser = Parser::new(regions);
        let mut tokens = Vec::new();
        let mut stopped = Stopped::Length;
        match text.read(&rows, request.max_tokens, sources, ending, run).await {
            Ok(count) => (timing.prefilled, timing.reused) = (count, rows.len() - count),
            Err(e) => {
                stopped_early(e)?;
                stopped = Stopped::Aborted;
            }
        }
        timing.prefill_ms = ms(start);
        let start = Instant::now();
        let known = model.tokens()?;
        let mut stream = known.stream();
        if stopped != Stopped::Aborted && request.max_tokens > 0 {
            let stops = model.config().llm.eos_token_id.to_vec();
            let done = text
                .generate(&mut sampler, request.max_tokens, run, &mut |token| {
                    tokens.push(token);
                    if stops.contains(&token) {
                        stopped = Stopped::End;
                        return Ok(false);
                    }
                    for piece in stream.push(token)? {
                        parser.push(piece).iter().for_each(&mut *on);
                    }
                    Ok(true)
                })
                .await;
            if let Err(e) = done {
                stopped_early(e)?;
                stopped = Stopped::Aborted;
            }
        }
        for piece in stream.finish()? {
            parser.push(piece).iter().for_each(&mut *on);
        }
        parser.finish().iter().for_each(&mut *on);
        timing.decode_ms = ms(start);
        if !tokens.is_empty() {
            let answer = known.parts(without_stop(&tokens, &model.config().llm.eos_token_id.to_vec()))?;
            self.say(turn, answer);
        }
        Ok(self.answer(tokens, parser, stopped, timing))
    }

    fn answer(&self, tokens: Vec<u32>, parser: Parser, stopped: Stopped, timing: Timing) -> Answer {
        let segments = parser.segments().to_vec();
        let regions = self.chosen.as_ref().map_or_else(Vec::new, |c| self.shown(&c.selected));
        Answer { text: grounding::join(&segments), segments, regions, tokens, stopped, timing }
    }

    /// The turn of a task, its boxes as indices into the conversation's drawn boxes.
    fn turn(&mut self, task: &Task) -> Result<Turn> {
        let (mut turn, boxes) = match task {
            Task::Ask { question, grounded, refer } => {
                (prompt::ask(question, *grounded, refer.len())?, refer.as_slice())
            }
            Task::Detect(label) => (prompt::detect(label)?, [].as_slice()),
            Task::Locate(phrase) => (prompt::locate(phrase)?, [].as_slice()),
            Task::Caption { bbox, long } => (prompt::caption(*long), std::slice::from_ref(bbox)),
            Task::Describe => (prompt::describe(), [].as_slice()),
        };
        let boxes = boxes.iter().map(|b| from_pixels(*b, self.width, self.height)).collect::<Result<Vec<_>>>()?;
        // boxes of a question that was never answered are no part of the conversation
        let said = self.turns.iter().flat_map(|s| &s.question.boxes).max().map_or(0, |last| last + 1);
        self.drawn.truncate(said);
        for place in &mut turn.boxes {
            let b = boxes[*place];
            *place = match self.drawn.iter().position(|known| *known == b) {
                Some(at) => at,
                None => {
                    self.drawn.push(b);
                    self.drawn.len() - 1
                }
            };
        }
        Ok(turn)
    }

    /// Selects regions for the drawn boxes and encodes them, unless they are the ones at hand.
    async fn choose(&mut self, run: &Run<'_>) -> Result<()> {
        if self.chosen.as_ref().is_some_and(|c| c.drawn == self.drawn) {
            return Ok(());
        }
        let start = Instant::now();
        let selected = select(&self.boxes, &self.scores, &self.drawn, &rules(&self.model))?;
        let tokens = region_tokens(&self.model, &self.seen.maps, &selected.boxes, run).await?;
        if let Some(text) = &mut self.text {
            text.forget_regions();
        }
        self.chosen = Some(Chosen { drawn: self.drawn.clone(), selected, tokens, untold_ms: ms(start) });
        Ok(())
    }

    /// The rows of the whole conversation up to `turn`.
    fn rows(&self, turn: &Turn, chosen: &Chosen) -> Result<Vec<prompt::Row>> {
        let (tokens, special) = (self.model.tokens()?, self.model.special()?);
        let mut turns = Vec::new();
        let mut matches: Vec<usize> = Vec::new();
        for said in &self.turns {
            turns.extend([said.question.parts.clone(), said.among(&chosen.selected.boxes)]);
            matches.extend(&said.question.boxes);
        }
        turns.push(turn.parts.clone());
        matches.extend(&turn.boxes);
        let matches: Vec<usize> = matches.into_iter().map(|b| chosen.selected.matches[b]).collect();
        let ids = tokens.encode_template(&prompt::build(self.model.config().chat_template, &turns))?;
        let (image, regions) = (self.model.config().image_tokens(), chosen.selected.boxes.len());
        Ok(prompt::expand(&ids, image, regions, &matches, special)?.rows)
    }
}

/// An answer's tokens without the stop token at its end.
#[must_use]
pub fn without_stop<'a>(tokens: &'a [u32], stops: &[u32]) -> &'a [u32] {
    tokens.split_last().filter(|(last, _)| stops.contains(last)).map_or(tokens, |(_, said)| said)
}

/// The configuration's rules of selection.
pub(super) fn rules(model: &Model) -> Rules {
    let c = model.config();
    Rules { nms: c.nms_thres, score: c.box_score_thres, max: c.max_region_num, shuffle_seed: None }
}

/// Places for what later questions read of the plan's results, and the copies into them: the next photo can use the plan.
fn kept(model: &Model, seen: &Seen) -> Result<(Seen, Vec<(Tensor, Tensor)>)> {
    let mut copies = Vec::new();
    let mut copy = |t: &Tensor| -> Result<Tensor> {
        let kept = model.device().zeros(t.label(), t.shape(), t.dtype())?;
        copies.push((t.clone(), kept.clone()));
        Ok(kept)
    };
    let image = seen.image.as_ref().map(&mut copy).transpose()?;
    let maps = seen.maps.iter().map(&mut copy).collect::<Result<_>>()?;
    Ok((Seen { image, maps, proposals: None }, copies))
}

/// The tokens of `boxes` (cx, cy, w, h), `[R, H]`.
async fn region_tokens(model: &Model, maps: &[Tensor], boxes: &[[f32; 4]], run: &Run<'_>) -> Result<Tensor> {
    let (plan, tokens) = plan_tokens(model, maps, boxes, false)?;
    plan.compile()?.run(run).await?;
    Ok(tokens)
}

/// Records the plan of the region tokens.
pub(crate) fn plan_tokens(model: &Model, maps: &[Tensor], boxes: &[[f32; 4]], tapped: bool) -> Result<(Plan, Tensor)> {
    let (c, device) = (model.config(), model.device());
    let shape = [boxes.len(), 4];
    let rois = region_encoder::rois(c, boxes);
    let rois = device.tensor_f32("regions.rois", &shape, bytemuck::cast_slice(&rois))?;
    let boxes = device.tensor_f32("regions.boxes", &shape, bytemuck::cast_slice(boxes))?;
    let tokens = device.zeros("regions.tokens", &[boxes.rows(), c.llm.hidden_size], DType::F32)?;
    let mut p = Plan::new(device, tapped);
    region_encoder::record_tokens(&mut p, c, model.weights(), maps, &boxes, &rois, &tokens)?;
    Ok((p, tokens))
}

#[cfg(test)]
#[path = "photo_tests.rs"]
mod tests;
