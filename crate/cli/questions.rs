//! `ask`, `detect`, `locate`, `caption`, `describe`: a photo and a task in, a streamed answer out.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::Say;
use super::engine::{self, with_run};
use super::out::{Aside, Out};
use super::overlay::{self, Mark};
use super::{failure, photo};
use crate::error::{At, Result};
use crate::groma::grounding::{Event, Segment, glued};
use crate::groma::preprocess::Rgb;
use crate::groma::{prompt, select};
use crate::session::{Answer, Photo, Region, Request, Stopped, Task};
use crate::tensor::plan::Cancel;

/// Answers a task about a photo.
pub(super) async fn answer(path: &Path, task: Task, say: &Say, cancel: &Cancel) -> Result<ExitCode> {
    // Whatever can be wrong with the call is said before a model is loaded.
    if let Some(file) = &say.overlay {
        overlay::format_of(file)?;
    }
    let rgb = photo::read(path)?;
    check(&task, &rgb)?;
    let aside = Aside::new(say.output.quiet);
    let mut out = Out::stdout();
    let model = engine::load(&say.engine, &aside, cancel).await?;
    aside.stage("looking at the photo");
    let mut photo = with_run(&aside, cancel, async |run| Photo::open(&model, &rgb, run).await).await?;
    aside.stage("reading the question");
    let given = boxes(&task).to_vec();
    let wants_boxes = matches!(task, Task::Detect(_) | Task::Locate(_));
    let request = Request { task, max_tokens: say.max_tokens, temperature: say.temperature, seed: say.seed };
    let mut stream = Stream::default();
    let mut failed = Ok(());
    let mut on = |event: &Event| {
        aside.clear();
        if !say.output.json && failed.is_ok() {
            failed = stream.tell(event, &mut out);
        }
    };
    let answer = with_run(&aside, cancel, async |run| photo.ask(&request, run, &mut on).await).await?;
    failed?;
    aside.clear();
    if say.output.json {
        out.json(&as_json(&rgb, &answer))?;
    } else {
        if stream.started {
            out.say("\n")?;
        }
        let lines = legend(&answer, &out);
        match (wants_boxes, lines.is_empty()) {
            (true, true) => aside.remark("nothing of the kind was found"),
            (true, false) => out.say(&lines)?,
            (false, true) => {}
            (false, false) => aside.remark(lines.trim_end()),
        }
    }
    if let Some(file) = &say.overlay {
        overlay::save(&rgb, &marks(&answer, &given), file).at("overlay")?;
    }
    Ok(match answer.stopped {
        Stopped::End => ExitCode::SUCCESS,
        Stopped::Length => {
            aside.remark(&cut(answer.tokens.len(), say.max_tokens));
            ExitCode::SUCCESS
        }
        Stopped::Aborted => {
            aside.remark("interrupted");
            failure::INTERRUPTED.into()
        }
    })
}

/// Why an answer was cut.
fn cut(tokens: usize, most: usize) -> String {
    let why = if tokens < most { "the model's context is full" } else { "--max-tokens allows more" };
    format!("(cut after {tokens} tokens; {why})")
}

/// The boxes that a task speaks of.
fn boxes(task: &Task) -> &[[f32; 4]] {
    match task {
        Task::Ask { refer, .. } => refer,
        Task::Caption { bbox, .. } => std::slice::from_ref(bbox),
        Task::Detect(_) | Task::Locate(_) | Task::Describe => &[],
    }
}

/// What the session would refuse later.
fn check(task: &Task, rgb: &Rgb) -> Result<()> {
    match task {
        Task::Ask { question, grounded, refer } => prompt::ask(question, *grounded, refer.len()).map(drop)?,
        Task::Detect(label) => prompt::detect(label).map(drop)?,
        Task::Locate(phrase) => prompt::locate(phrase).map(drop)?,
        Task::Caption { .. } | Task::Describe => {}
    }
    for (i, bbox) in boxes(task).iter().enumerate() {
        select::from_pixels(*bbox, rgb.width, rgb.height).at(format!("box {}", i + 1))?;
    }
    Ok(())
}

/// Puts events into words: `A dog [1, 2] runs.`
#[derive(Debug, Default)]
struct Stream {
    /// Whether anything was said.
    started: bool,
    /// Text of the segment at hand that was said.
    said: bool,
}

impl Stream {
    fn tell(&mut self, event: &Event, out: &mut Out) -> Result<()> {
        let words = self.words(event, out);
        out.say(&words)
    }

    fn words(&mut self, event: &Event, out: &Out) -> String {
        let mut text = String::new();
        if !event.delta.is_empty() {
            if !self.said && self.started && !glued(&event.text) {
                text.push(' ');
            }
            text.push_str(&event.delta);
            self.said = true;
        }
        if event.closed {
            if !event.regions.is_empty() {
                if self.started || self.said {
                    text.push(' ');
                }
                let ids: Vec<String> = event.regions.iter().map(|id| out.numbered(*id, &id.to_string())).collect();
                text.push_str(&format!("[{}]", ids.join(", ")));
            }
            self.said = false;
        }
        self.started |= !text.is_empty();
        text
    }
}

/// The regions that an answer names, in the order in which it does, each once.
fn named(answer: &Answer) -> Vec<&Region> {
    let mut named: Vec<&Region> = Vec::new();
    for id in answer.segments.iter().flat_map(|s| &s.regions) {
        if let Some(region) = answer.regions.iter().find(|r| r.id == *id)
            && !named.iter().any(|n| n.id == *id)
        {
            named.push(region);
        }
    }
    named
}

/// A line a region: its number, its box, its score.
fn legend(answer: &Answer, out: &Out) -> String {
    named(answer).into_iter().map(|r| line(r, out)).collect()
}

/// A region as a line: `3: 10,20,200,220 (0.87)`.
pub(super) fn line(region: &Region, out: &Out) -> String {
    let [x0, y0, x1, y1] = region.bbox;
    let number = out.numbered(region.id, &region.id.to_string());
    format!("{number}: {x0:.0},{y0:.0},{x1:.0},{y1:.0} ({:.2})\n", region.score)
}

/// What an answer draws: the boxes that it names, and those that it was asked about.
fn marks(answer: &Answer, given: &[[f32; 4]]) -> Vec<Mark> {
    let named = named(answer).into_iter().map(|r| Mark { number: Some(r.id), bbox: r.bbox });
    named.chain(given.iter().map(|b| Mark { number: None, bbox: *b })).collect()
}

/// A region as an object. Its numbers are written as short as f32 allows, not as the f64 that JSON would make of them.
pub(super) fn region_json(region: &Region) -> Value {
    let short = |v: f32| v.to_string().parse::<f64>().ok();
    json!({ "id": region.id, "box": region.bbox.map(short), "score": short(region.score) })
}

/// The answer as one object; segments carry their regions whole.
fn as_json(rgb: &Rgb, answer: &Answer) -> Value {
    let segment = |s: &Segment| {
        let known = |id: &usize| answer.regions.iter().find(|r| r.id == *id).map(region_json);
        let regions: Vec<Value> = s.regions.iter().filter_map(known).collect();
        json!({ "index": s.index, "kind": s.kind, "text": s.text, "closed": s.closed, "regions": regions })
    };
    json!({
        "photo": { "width": rgb.width, "height": rgb.height },
        "text": answer.text,
        "segments": answer.segments.iter().map(segment).collect::<Vec<_>>(),
        "regions": answer.regions.iter().map(region_json).collect::<Vec<_>>(),
        "tokens": answer.tokens,
        "stopped": answer.stopped,
        "timing": answer.timing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groma::grounding::{Kind, Parser, Piece, join_numbered};
    use crate::session::Timing;

    fn region(id: usize) -> Region {
        Region { id, bbox: [1.0, 2.0, 30.0, 40.0], score: 0.5 }
    }

    fn answer_of(segments: Vec<Segment>) -> Answer {
        let regions = (0..3).map(region).collect();
        Answer {
            text: String::new(),
            segments,
            regions,
            tokens: vec![7],
            stopped: Stopped::End,
            timing: Timing::default(),
        }
    }

    #[test]
    fn regions_are_named_once_in_order() {
        let segment = |index, regions| Segment { index, kind: Kind::Phrase, text: "x".into(), regions, closed: true };
        let answer = answer_of(vec![segment(0, vec![2, 0]), segment(1, vec![0, 9])]);
        let mut out = Out::stdout();
        out.colour = false;
        assert_eq!(legend(&answer, &out), "2: 1,2,30,40 (0.50)\n0: 1,2,30,40 (0.50)\n");
        assert_eq!(marks(&answer, &[[0.0; 4]]).iter().map(|m| m.number).collect::<Vec<_>>(), [Some(2), Some(0), None]);
        let rgb = Rgb::new(50, 40, vec![0; 6000]).unwrap();
        let json = as_json(&rgb, &answer);
        assert_eq!(json["segments"][0]["regions"][0], json!({ "id": 2, "box": [1.0, 2.0, 30.0, 40.0], "score": 0.5 }));
        assert_eq!(json["photo"], json!({ "width": 50, "height": 40 }));
        assert_eq!((&json["stopped"], &json["segments"][0]["kind"]), (&json!("end"), &json!("phrase")));
    }

    #[test]
    fn streamed_words_are_the_joined_text() {
        let pieces = [
            Piece::Text(" Two".into()),
            Piece::PhraseOpen,
            Piece::Text(" a".into()),
            Piece::Text(" dog".into()),
            Piece::PhraseClose,
            Piece::ListOpen,
            Piece::Index(1),
            Piece::Index(2),
            Piece::ListClose,
            Piece::Text(",".into()),
            Piece::Text(" and ".into()),
            Piece::ListOpen,
            Piece::Index(0),
            Piece::ListClose,
            Piece::Text("!".into()),
        ];
        let mut parser = Parser::new(3);
        let mut events: Vec<Event> = pieces.into_iter().flat_map(|p| parser.push(p)).collect();
        events.extend(parser.finish());
        let (mut stream, mut text) = (Stream::default(), String::new());
        let mut out = Out::stdout();
        out.colour = false;
        for event in &events {
            text.push_str(&stream.words(event, &out));
        }
        assert_eq!(text, "Two a dog [1, 2], and [0]!");
        assert_eq!(text, join_numbered(parser.segments()));
    }

    #[test]
    fn a_cut_answer_says_what_cut_it() {
        assert_eq!(cut(256, 256), "(cut after 256 tokens; --max-tokens allows more)");
        assert_eq!(cut(256, 1000), "(cut after 256 tokens; the model's context is full)");
    }

    #[test]
    fn wrong_calls_are_found_before_the_model() {
        let rgb = Rgb::new(50, 40, vec![0; 6000]).unwrap();
        let e = check(&Task::Caption { bbox: [60.0, 0.0, 70.0, 10.0], long: false }, &rgb).unwrap_err();
        assert!(e.to_string().starts_with("box 1: the box lies outside the photo"), "{e}");
        assert!(check(&Task::Detect(" ".into()), &rgb).is_err());
        assert!(check(&Task::Describe, &rgb).is_ok());
    }
}
