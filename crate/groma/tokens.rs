//! Between text and token ids.
//!
//! A prompt is made of a template's own parts, in which special tokens have their meaning, and of what a person typed,
//! in which nothing has a meaning: `</p><roi>` in a question is just text. Where nobody types a special token the ids
//! are those of the joined text, so that the model sees what it was trained on.
//!
//! The added tokens are therefore split off here, by the rules of `tokenizers` (leftmost, longest, stripping white space
//! around where a token says so), and only the stretches between them go through its pipeline.

use std::collections::HashMap;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{Decoder, Model, Tokenizer};

use super::grounding::Piece;
use crate::error::{Code, Error, Result};

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The template's own words; special tokens in it are tokens.
    Template(String),
    /// What a person typed (or a model spelled out): text, whatever it says.
    Typed(String),
}

impl Part {
    /// A part of the template.
    pub fn template(text: impl Into<String>) -> Self {
        Part::Template(text.into())
    }

    /// Something typed.
    pub fn typed(text: impl Into<String>) -> Self {
        Part::Typed(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Part::Template(t) | Part::Typed(t) => t,
        }
    }
}

/// An added token as `tokenizer.json` has it.
#[derive(Clone, Debug, Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

/// A tokenizer and its added tokens.
pub struct Tokens {
    /// Knows no added tokens: whatever goes in is text.
    plain: Tokenizer,
    added: Vec<Added>,
    by_id: HashMap<u32, usize>,
    by_content: HashMap<String, usize>,
    index: Vec<u32>,
    /// What the post-processor puts before a text: `<s>`, or nothing.
    prefix: Vec<u32>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("added", &self.added.len()).finish_non_exhaustive()
    }
}

/// Each is looked for at every place of a prompt.
const MAX_ADDED: usize = 10_000;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message).at("tokenizer.json")
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("tokenizers: {e}"))
}

impl Tokens {
    /// From the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// `pack-invalid` for anything that is no tokenizer.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let mut value: Value = serde_json::from_slice(json).map_err(|e| invalid(format!("no JSON: {e}")))?;
        if !value.is_object() {
            return Err(invalid("no JSON object"));
        }
        let list = value.get_mut("added_tokens").map_or(Value::Null, Value::take);
        let mut added: Vec<Added> = match list {
            Value::Null => Vec::new(),
            list => serde_json::from_value(list).map_err(|e| invalid(format!("added_tokens: {e}")))?,
        };
        added.retain(|a| !a.content.is_empty());
        if added.len() > MAX_ADDED {
            return Err(invalid("too many added tokens").expected(format!("at most {MAX_ADDED}"), added.len()));
        }
        value["added_tokens"] = Value::Array(Vec::new());
        // Padding and truncation would change the ids; a prompt is neither padded nor cut.
        value["padding"] = Value::Null;
        value["truncation"] = Value::Null;
        // A post-processor only says what stands before a text. Whoever runs one with a token that it lacks panics.
        let prefix = prefix(&value["post_processor"]);
        value["post_processor"] = Value::Null;
        check_model(&value["model"])?;
        check_decoder(&value["decoder"])?;
        let plain = Tokenizer::from_str(&value.to_string()).map_err(|e| invalid(e.to_string()))?;
        let by_id = added.iter().enumerate().map(|(i, a)| (a.id, i)).collect();
        let by_content: HashMap<String, usize> =
            added.iter().enumerate().map(|(i, a)| (a.content.clone(), i)).collect();
        let id = |name: String| by_content.get(&name).map(|i| added[*i].id);
        let index = (0..).map_while(|i| id(format!("<r{i}>"))).collect();
        Ok(Self { plain, by_id, by_content, index, prefix, added })
    }

    /// The ids of a prompt, the start token included where the tokenizer has one.
    ///
    /// # Errors
    /// `internal` where the tokenizer's model fails.
    pub fn encode_template(&self, parts: &[Part]) -> Result<Vec<u32>> {
        let mut ids = self.prefix.clone();
        self.encode_parts(parts, &mut ids)?;
        Ok(ids)
    }

    /// The ids of a text in which special tokens are tokens, without a start token.
    ///
    /// # Errors
    /// As [`Tokens::encode_template`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.encode_parts(&[Part::template(text)], &mut ids)?;
        Ok(ids)
    }

    fn encode_parts(&self, parts: &[Part], ids: &mut Vec<u32>) -> Result<()> {
        // A stretch is the text since the last added token, over as many parts as it takes.
        let mut stretch = String::new();
        let mut stripped = false;
        for part in join_templates(parts) {
            let Part::Template(mut text) = part else {
                stretch.push_str(part.text());
                continue;
            };
            while let Some((at, token)) = self.first_added(&text) {
                stretch.push_str(&text[..at]);
                let cut = if token.lstrip { stretch.trim_end() } else { &stretch };
                self.encode_stretch(cut, stripped, ids)?;
                ids.push(token.id);
                stripped = token.rstrip;
                stretch.clear();
                text.drain(..at + token.content.len());
            }
            stretch.push_str(&text);
        }
        self.encode_stretch(&stretch, stripped, ids)
    }

    /// The leftmost added token in a text, the longest where several begin there.
    fn first_added(&self, text: &str) -> Option<(usize, &Added)> {
        text.char_indices().find_map(|(at, _)| {
            let here = self.added.iter().filter(|a| text[at..].starts_with(&a.content));
            here.max_by_key(|a| a.content.len()).map(|a| (at, a))
        })
    }

    fn encode_stretch(&self, text: &str, strip_start: bool, ids: &mut Vec<u32>) -> Result<()> {
        let text = if strip_start { text.trim_start() } else { text };
        if text.is_empty() {
            return Ok(());
        }
        let encoding = self.plain.encode_fast(text, false).map_err(failed)?;
        for &id in encoding.get_ids() {
            match self.by_id.get(&id) {
                // Some vocabularies can merge plain letters into a special token (Vicuna's `</` and `s>`): letter by
                // letter they can't.
                Some(&special) if self.added[special].content.chars().nth(1).is_some() => {
                    for letter in self.added[special].content.chars() {
                        let spelled =
                            self.plain.get_model().tokenize(letter.encode_utf8(&mut [0; 4])).map_err(failed)?;
                        ids.extend(spelled.iter().map(|t| t.id));
                    }
                }
                _ => ids.push(id),
            }
        }
        Ok(())
    }

    /// The id of a special token: `<image>`.
    #[must_use]
    pub fn special(&self, name: &str) -> Option<u32> {
        self.by_content.get(name).map(|i| self.added[*i].id)
    }

    /// The id of a special token that a model can't do without.
    ///
    /// # Errors
    /// `pack-invalid` names the token.
    pub fn need(&self, name: &str) -> Result<u32> {
        self.special(name).ok_or_else(|| invalid(format!("the token {name} is missing")))
    }

    /// The id of `<r{i}>`.
    #[must_use]
    pub fn index_id(&self, i: usize) -> Option<u32> {
        self.index.get(i).copied()
    }

    /// The ids of `<r0>`, `<r1>`, ….
    #[must_use]
    pub fn index_ids(&self) -> &[u32] {
        &self.index
    }

    /// Whether an id is one of `<r0>`, `<r1>`, …, and which.
    #[must_use]
    pub fn is_index(&self, id: u32) -> Option<usize> {
        let content = &self.added[*self.by_id.get(&id)?].content;
        content.strip_prefix("<r")?.strip_suffix('>')?.parse().ok().filter(|&i| self.index.get(i) == Some(&id))
    }

    /// Ids that there are: the vocabulary and what was added to it.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        let last = self.added.iter().map(|a| a.id as usize + 1).max().unwrap_or(0);
        last.max(self.plain.get_model().get_vocab_size())
    }

    /// The text of ids, special tokens spelled out, bytes that are no UTF-8 as U+FFFD.
    ///
    /// # Errors
    /// `internal` where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.join(ids.iter().filter_map(|id| self.raw(*id)).collect())
    }

    /// The text of one token as it stands inside a text (a word keeps the space before it).
    ///
    /// # Errors
    /// As [`Tokens::decode`].
    pub fn piece(&self, id: u32) -> Result<String> {
        self.decode_run(&[id])
    }

    /// Text inside a text: a decoder may drop the space before the first word, so something stands before it.
    fn decode_run(&self, ids: &[u32]) -> Result<String> {
        let pieces = std::iter::once("x".to_owned()).chain(ids.iter().filter_map(|id| self.raw(*id)));
        let text = self.join(pieces.collect())?;
        // A decoder may be anything that a file asks for, also one that changes the mark.
        Ok(text.strip_prefix('x').map(str::to_owned).unwrap_or(text))
    }

    fn join(&self, pieces: Vec<String>) -> Result<String> {
        match self.plain.get_decoder() {
            Some(decoder) if !pieces.is_empty() => decoder.decode(pieces).map_err(failed),
            _ => Ok(pieces.concat()),
        }
    }

    fn raw(&self, id: u32) -> Option<String> {
        match self.by_id.get(&id) {
            Some(&i) => Some(self.added[i].content.clone()),
            None => self.plain.get_model().id_to_token(id),
        }
    }

    /// What an added token means to whoever reads an answer; `None` where it is text.
    fn mark(&self, id: u32) -> Option<Piece> {
        let added = &self.added[*self.by_id.get(&id)?];
        Piece::mark(&added.content).or(added.special.then_some(Piece::Other))
    }

    /// An answer's tokens as parts of a later prompt: what the model marked stays marked, what it spelled is text, and
    /// special tokens without a place in an answer (a second `<image>`, say) are left out.
    ///
    /// # Errors
    /// As [`Tokens::decode`].
    pub fn parts(&self, ids: &[u32]) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        let ids: Vec<u32> = ids.iter().copied().filter(|id| self.mark(*id) != Some(Piece::Other)).collect();
        let runs = ids.chunk_by(|a, b| self.by_id.contains_key(a) == self.by_id.contains_key(b));
        for (i, run) in runs.enumerate() {
            let text = if i == 0 { self.decode(run)? } else { self.decode_run(run)? };
            parts.push(if self.by_id.contains_key(&run[0]) { Part::Template(text) } else { Part::Typed(text) });
        }
        Ok(parts)
    }

    /// A reader of tokens as they come.
    #[must_use]
    pub fn stream(&self) -> Stream<'_> {
        Stream { tokens: self, pending: Vec::new() }
    }
}

/// The ids that a post-processor puts before a text.
fn prefix(processor: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let list = |v: &Value| v.as_array().map_or(Vec::new(), |l| l.iter().filter_map(id).collect());
    match processor["type"].as_str() {
        Some("Sequence") => processor["processors"].as_array().into_iter().flatten().flat_map(prefix).collect(),
        Some("BertProcessing" | "RobertaProcessing") => id(&processor["cls"][1]).into_iter().collect(),
        Some("TemplateProcessing") => {
            let pieces = processor["single"].as_array().into_iter().flatten();
            let before = pieces.map_while(|p| p["SpecialToken"]["id"].as_str());
            before.flat_map(|name| list(&processor["special_tokens"][name]["ids"])).collect()
        }
        _ => Vec::new(),
    }
}

/// Refuses merges whose result is no token: who builds them joins both halves, less the right one's prefix, in room for the longest
/// token, and panics where the prefix or the room is missing.
fn check_model(model: &Value) -> Result<()> {
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            pair => pair[0].as_str().zip(pair[1].as_str()),
        };
        // what is no pair is told by whoever reads it
        let Some((left, right)) = pair else { continue };
        let joined = right.strip_prefix(prefix).map(|rest| format!("{left}{rest}"));
        if joined.is_none_or(|token| model["vocab"].get(token).is_none()) {
            return Err(invalid(format!("the merge of {left:?} and {right:?} makes no token of the vocabulary")));
        }
    }
    Ok(())
}

/// Refuses decoders that panic on short tokens: those that strip something from the end.
fn check_decoder(decoder: &Value) -> Result<()> {
    match decoder["type"].as_str() {
        Some("Sequence") => decoder["decoders"].as_array().into_iter().flatten().try_for_each(check_decoder),
        Some("Strip") if decoder["stop"] != 0 => {
            Err(invalid("the decoder strips the end of tokens").expected("stop 0", &decoder["stop"]))
        }
        _ => Ok(()),
    }
}

/// Neighbouring template parts are one text: a token may not be torn by how a template was put together.
fn join_templates(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Template(before)), Part::Template(text)) => before.push_str(text),
            _ => joined.push(part.clone()),
        }
    }
    joined
}

/// Turns tokens into pieces one by one. Characters whose bytes are spread over several tokens come out whole.
#[derive(Debug)]
pub struct Stream<'a> {
    tokens: &'a Tokens,
    /// Text tokens that end in the middle of a character.
    pending: Vec<u32>,
}

impl Stream<'_> {
    /// Takes a token and gives the pieces that it completes, in order.
    ///
    /// # Errors
    /// As [`Tokens::decode`].
    pub fn push(&mut self, id: u32) -> Result<Vec<Piece>> {
        if let Some(mark) = self.tokens.mark(id) {
            let mut pieces = self.finish()?;
            pieces.push(mark);
            return Ok(pieces);
        }
        self.pending.push(id);
        let text = self.tokens.decode_run(&self.pending)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(Vec::new());
        }
        self.pending.clear();
        Ok(vec![Piece::Text(text)])
    }

    /// Nothing follows: what is left of a torn character comes out as U+FFFD.
    ///
    /// # Errors
    /// As [`Tokens::decode`].
    pub fn finish(&mut self) -> Result<Vec<Piece>> {
        if self.pending.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.tokens.decode_run(&self.pending)?;
        self.pending.clear();
        Ok(vec![Piece::Text(text)])
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
