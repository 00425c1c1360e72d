//! From a task to the ids and rows that the decoder reads: templates, wordings, and the places of image and regions.
//!
//! The wordings are upstream's; a model answers best to the words it was trained on.

pub use super::config::Template;
use super::select::{corners, most_overlapping};
use super::tokens::{Part, Tokens};
use crate::error::{Code, Error, Result};

const SYSTEM_VICUNA: &str = "A chat between a curious user and an artificial intelligence assistant. \
    The assistant gives helpful, detailed, and polite answers to the user's questions.";
const SYSTEM_CHATML: &str = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
/// The first two messages are always these; everything up to the regions is the same for all questions about a photo.
const IMAGE_TURN: &str = "Here is an image with region crops from it. Image: <image>. Regions: <region>.";
const IMAGE_REPLY: &str = "Thank you for the image! How can I assist you with it?";

/// How a box that a person drew is named in a prompt.
const REFERENCE: &str = "<roi><refer_box></roi><refer_feat>";
const GROUNDING: &str = "[grounding]";

/// What a user says in one turn, and which of the given boxes each `<refer_box>` in it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Turn {
    /// The text.
    pub parts: Vec<Part>,
    /// For the n-th `<refer_box>` the box it stands for, as an index into the given boxes.
    pub boxes: Vec<usize>,
}

/// Writes a conversation down. `turns` are user, assistant, user, … after the image turn, and end with a user's.
#[must_use]
pub fn build(template: Template, turns: &[Vec<Part>]) -> Vec<Part> {
    let fixed = [vec![Part::template(IMAGE_TURN)], vec![Part::template(IMAGE_REPLY)]];
    write(template, fixed.iter().chain(turns))
}

/// A conversation without a photo, as the language model alone knows it.
#[must_use]
pub fn build_text_only(template: Template, turns: &[Vec<Part>]) -> Vec<Part> {
    write(template, turns.iter())
}

fn write<'a>(template: Template, messages: impl Iterator<Item = &'a Vec<Part>>) -> Vec<Part> {
    let mut out = vec![match template {
        Template::Vicuna => Part::template(format!("{SYSTEM_VICUNA} ")),
        Template::ChatMl => Part::template(format!("<|im_start|>system\n{SYSTEM_CHATML}<|im_end|>\n")),
    }];
    for (i, message) in messages.enumerate() {
        let (before, after) = match (template, i % 2) {
            (Template::Vicuna, 0) => ("USER: ", " "),
            (Template::Vicuna, _) => ("ASSISTANT: ", "</s>"),
            (Template::ChatMl, 0) => ("<|im_start|>user\n", "<|im_end|>\n"),
            (Template::ChatMl, _) => ("<|im_start|>assistant\n", "<|im_end|>\n"),
        };
        out.push(Part::template(before));
        out.extend(message.iter().cloned());
        out.push(Part::template(after));
    }
    out.push(Part::template(match template {
        Template::Vicuna => "ASSISTANT:",
        Template::ChatMl => "<|im_start|>assistant\n",
    }));
    out
}

fn not_empty(text: &str, what: &str) -> Result<()> {
    if text.trim().is_empty() { Err(Error::new(Code::QuestionEmpty, format!("there is no {what}"))) } else { Ok(()) }
}

/// A question, with `[1]`, `[2]` … in it for the `boxes` that a person drew. Boxes that the question does not mention
/// are added before its final punctuation.
///
/// # Errors
/// `question-empty`; `usage` for a number that stands for no box.
pub fn ask(question: &str, grounded: bool, boxes: usize) -> Result<Turn> {
    not_empty(question, "question")?;
    let mut turn = Turn::default();
    if grounded {
        turn.parts.push(Part::template(GROUNDING));
    }
    let mut rest = question;
    while let Some((before, number, after)) = next_placeholder(rest).filter(|_| boxes > 0) {
        if number == 0 || number > boxes {
            let e = Error::new(Code::Usage, format!("[{number}] stands for no box"));
            return Err(e.expected(format!("[1] to [{boxes}]"), format!("[{number}]")));
        }
        turn.parts.extend([Part::typed(before), Part::template(REFERENCE)]);
        turn.boxes.push(number - 1);
        rest = after;
    }
    let missing: Vec<usize> = (0..boxes).filter(|b| !turn.boxes.contains(b)).collect();
    let body = rest.trim_end().trim_end_matches(is_final).trim_end();
    let (body, end) = if missing.is_empty() { (rest, "") } else { rest.split_at(body.len()) };
    turn.parts.push(Part::typed(body));
    for b in missing {
        turn.parts.push(Part::template(format!(" {REFERENCE}")));
        turn.boxes.push(b);
    }
    turn.parts.push(Part::typed(end));
    turn.parts.retain(|p| !p.text().is_empty());
    Ok(turn)
}

/// Punctuation that may end a question, in the scripts that have their own.
fn is_final(c: char) -> bool {
    matches!(c, '.' | '?' | '!' | ':' | ';' | '…' | '。' | '？' | '！' | '؟' | '।')
}

/// The first `[n]` in a text: what is before it, n, and what is behind it.
fn next_placeholder(text: &str) -> Option<(&str, usize, &str)> {
    text.match_indices('[').find_map(|(at, _)| {
        let (digits, after) = text[at + 1..].split_once(']')?;
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        Some((&text[..at], number, after))
    })
}

/// Everything of a kind: `dog`.
///
/// # Errors
/// `question-empty`.
pub fn detect(label: &str) -> Result<Turn> {
    not_empty(label, "label")?;
    Ok(around("Locate all <p>", label, "</p> in this image."))
}

/// The one that a phrase describes: `the man in red`.
///
/// # Errors
/// `question-empty`.
pub fn locate(phrase: &str) -> Result<Turn> {
    not_empty(phrase, "phrase")?;
    Ok(around("Locate <p>", phrase, "</p> in the image."))
}

fn around(before: &str, typed: &str, after: &str) -> Turn {
    Turn { parts: vec![Part::template(before), Part::typed(typed), Part::template(after)], boxes: Vec::new() }
}

/// What is in a box, in a few words or in detail.
#[must_use]
pub fn caption(long: bool) -> Turn {
    let text = if long {
        format!("Please describe {REFERENCE} in details.")
    } else {
        format!("Please briefly describe {REFERENCE}.")
    };
    Turn { parts: vec![Part::template(text)], boxes: vec![0] }
}

/// A grounded description of the whole photo.
#[must_use]
pub fn describe() -> Turn {
    let text = format!("{GROUNDING}Please briefly summarize the content of this image.");
    Turn { parts: vec![Part::template(text)], boxes: Vec::new() }
}

/// The ids of the tokens whose rows are not (only) their own embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// `<image>`
    pub image: u32,
    /// `<region>`
    pub region: u32,
    /// `<refer_box>`
    pub refer_box: u32,
    /// `<refer_feat>`
    pub refer_feat: u32,
    /// `<r0>`, `<r1>`, …
    pub index: Vec<u32>,
}

impl Special {
    /// Looks them up.
    ///
    /// # Errors
    /// `pack-invalid` names the token that is missing.
    pub fn of(tokens: &Tokens) -> Result<Self> {
        Ok(Self {
            image: tokens.need("<image>")?,
            region: tokens.need("<region>")?,
            refer_box: tokens.need("<refer_box>")?,
            refer_feat: tokens.need("<refer_feat>")?,
            index: tokens.index_ids().to_vec(),
        })
    }
}

/// Where the embedding of a position comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// The embedding of a token.
    Token(u32),
    /// An image token.
    Image(u32),
    /// A region token.
    Region(u32),
}

/// A prompt as the decoder reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expanded {
    /// One id a position.
    pub ids: Vec<u32>,
    /// One row a position.
    pub rows: Vec<Row>,
}

/// Gives image and regions their places: `<image>` becomes `num_image` copies, `<region>` becomes
/// `<r0><region><r1><region>…`, the n-th `<refer_box>` becomes the index of region `matches[n]`, and the n-th
/// `<refer_feat>` gets that region's row.
///
/// # Errors
/// `usage` for a prompt whose places are not one image, then one list of regions, and for a box without a match; `pack-invalid` for
/// more regions than index tokens.
pub fn expand(ids: &[u32], num_image: usize, num_regions: usize, matches: &[usize], sp: &Special) -> Result<Expanded> {
    check_places(ids, sp)?;
    if num_regions > sp.index.len() {
        let e = Error::new(Code::PackInvalid, "there are more regions than index tokens");
        return Err(e.expected(format!("at most {}", sp.index.len()), num_regions));
    }
    let region_of = |n: usize, name: &str| {
        let given = matches.get(n).ok_or_else(|| {
            let e = Error::new(Code::Usage, format!("{name} has no box"));
            e.expected(format!("at most {} of them", matches.len()), n + 1)
        })?;
        if *given < num_regions {
            Ok(*given)
        } else {
            Err(Error::internal("a box is matched to a region that was not kept"))
        }
    };
    let mut out = Expanded { ids: Vec::new(), rows: Vec::new() };
    let mut put = |id: u32, row: Row| {
        out.ids.push(id);
        out.rows.push(row);
    };
    let (mut boxes, mut feats) = (0, 0);
    for &id in ids {
        if id == sp.image {
            (0..num_image).for_each(|i| put(id, Row::Image(i as u32)));
        } else if id == sp.region {
            for (j, &index) in sp.index[..num_regions].iter().enumerate() {
                put(index, Row::Token(index));
                put(id, Row::Region(j as u32));
            }
        } else if id == sp.refer_box {
            let index = sp.index[region_of(boxes, "<refer_box>")?];
            put(index, Row::Token(index));
            boxes += 1;
        } else if id == sp.refer_feat {
            put(id, Row::Region(region_of(feats, "<refer_feat>")? as u32));
            feats += 1;
        } else {
            put(id, Row::Token(id));
        }
    }
    Ok(out)
}

/// One image, then one list of regions, and no feature of a box that is not named (O-18).
fn check_places(ids: &[u32], sp: &Special) -> Result<()> {
    let count = |id: u32| ids.iter().filter(|&&t| t == id).count();
    for (id, name) in [(sp.image, "<image>"), (sp.region, "<region>")] {
        if count(id) != 1 {
            return Err(
                Error::new(Code::Usage, format!("the prompt has a wrong number of {name}")).expected(1, count(id))
            );
        }
    }
    let place = |id: u32| ids.iter().position(|&t| t == id);
    if place(sp.image) > place(sp.region) {
        return Err(Error::new(Code::Usage, "<region> stands before <image>"));
    }
    if count(sp.refer_feat) > count(sp.refer_box) {
        let e = Error::new(Code::Usage, "the prompt has <refer_feat> without <refer_box>");
        return Err(e.expected(count(sp.refer_box), count(sp.refer_feat)));
    }
    Ok(())
}

/// For each of the regions `old` the region of `new` that overlaps it most. Boxes are (cx, cy, w, h).
#[must_use]
pub fn remap(old: &[[f32; 4]], new: &[[f32; 4]]) -> Vec<usize> {
    let new: Vec<[f32; 4]> = new.iter().map(corners).collect();
    old.iter().map(|b| most_overlapping(&corners(b), &new)).collect()
}

/// Rewrites `<rN>` in earlier turns when the set of boxes, and with it the regions' ids, changed: each becomes the kept
/// region that overlaps it most. Only the template's own parts speak of regions; what a person typed is left alone.
pub fn remap_indices(parts: &mut [Part], old: &[[f32; 4]], new: &[[f32; 4]]) {
    let to = remap(old, new);
    for part in parts {
        let Part::Template(text) = part else { continue };
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("<r") {
            let number = after.split_once('>').and_then(|(n, behind)| Some((n.parse::<usize>().ok()?, behind)));
            out.push_str(before);
            match number.and_then(|(n, behind)| Some((to.get(n)?, behind))) {
                Some((n, behind)) => {
                    out.push_str(&format!("<r{n}>"));
                    rest = behind;
                }
                None => {
                    out.push_str("<r");
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        *text = out;
    }
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
