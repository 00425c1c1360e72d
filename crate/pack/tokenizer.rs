//! `tokenizer.json` out of what models bring instead: a GGUF file's metadata, or a SentencePiece model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::checkpoint::read_json;
use super::gguf::GgufHead;
use super::manifest::MAX_TOKENIZER;
use crate::error::{At, Code, Error, Result};

/// Tokens that are appended to a vocabulary (`tokenizer_additions.json`).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Added {
    #[serde(default)]
    first_id: Option<usize>,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    tokens: Vec<String>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::PackInvalid, message)
}

impl Added {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        serde_json::from_value(read_json(path)?)
            .map_err(|e| invalid(format!("not a list of added tokens: {e}")).at(path.display()))
    }

    /// Upstream's tokens in upstream's order (golden/README.md 8.1), those that `has` knows left out.
    pub(crate) fn upstream(has: impl Fn(&str) -> bool) -> Self {
        const NAMES: [&str; 17] = [
            "[PAD]",
            "<s>",
            "</s>",
            "<unk>",
            "<sep>",
            "<img>",
            "</img>",
            "<roi>",
            "</roi>",
            "<p>",
            "</p>",
            "<image>",
            "<region>",
            "<refer_box>",
            "<ground_box>",
            "<refer_feat>",
            "[grounding]",
        ];
        let all = NAMES.into_iter().map(str::to_owned).chain((0..100).map(|i| format!("<r{i}>")));
        let tokens = all.filter(|t| !has(t)).collect();
        Self { first_id: None, special: true, lstrip: true, rstrip: true, normalized: false, tokens }
    }

    /// Entries of `added_tokens`, from id `vocab` on.
    fn entries(&self, vocab: usize) -> Result<Vec<Value>> {
        if let Some(first) = self.first_id.filter(|f| *f != vocab) {
            return Err(
                invalid("the added tokens do not follow the vocabulary").expected(format!("first_id {vocab}"), first)
            );
        }
        let entry = |(i, t): (usize, &String)| {
            json!({"id": vocab + i, "content": t, "single_word": false, "lstrip": self.lstrip, "rstrip": self.rstrip,
                   "normalized": self.normalized, "special": self.special})
        };
        Ok(self.tokens.iter().enumerate().map(entry).collect())
    }
}

fn special(id: usize, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

fn to_bytes(json: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(json).map_err(|e| Error::internal(format!("tokenizer.json: {e}")))
}

/// llama.cpp's type of a token that is no text.
const CONTROL: i64 = 3;

/// From the metadata of a GGUF file: byte-level BPE that splits every digit off (golden/README.md 14.2).
pub(crate) fn from_gguf(head: &GgufHead, added: &Added) -> Result<Vec<u8>> {
    let (model, pre) = (head.text("tokenizer.ggml.model"), head.text("tokenizer.ggml.pre"));
    if (model, pre) != (Some("gpt2"), Some("smollm")) {
        return Err(invalid("a tokenizer of another kind")
            .expected("gpt2, smollm", format!("{model:?}, {pre:?}"))
            .at("tokenizer.ggml"));
    }
    let texts = |key: &str| -> Result<Vec<&str>> {
        let list = head.texts(key).ok_or_else(|| invalid("not a list of texts").at(key))?;
        Ok(list.iter().map(String::as_str).collect())
    };
    let tokens = texts("tokenizer.ggml.tokens")?;
    let vocab: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(i, t)| (*t, i)).collect();
    if vocab.len() != tokens.len() {
        return Err(invalid("tokens of the same text").expected(tokens.len(), vocab.len()).at("tokenizer.ggml.tokens"));
    }
    let merges: Option<Vec<(&str, &str)>> =
        texts("tokenizer.ggml.merges")?.into_iter().map(|m| m.split_once(' ')).collect();
    let merges = merges.ok_or_else(|| invalid("a merge is not a pair").at("tokenizer.ggml.merges"))?;
    let kinds = head.wholes("tokenizer.ggml.token_type").unwrap_or_default();
    let control = |(i, t): (usize, &&str)| (kinds.get(i) == Some(&CONTROL)).then(|| special(i, t));
    let mut list: Vec<Value> = tokens.iter().enumerate().filter_map(control).collect();
    list.extend(added.entries(tokens.len())?);
    to_bytes(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": list, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges},
    }))
}

/// A piece of a SentencePiece model.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// From a SentencePiece BPE model with added tokens, brought into the form of golden/README.md 8.2.
pub(crate) fn from_sentencepiece(model: &[u8], added: Option<&Value>, new: usize) -> Result<Vec<u8>> {
    let (pieces, kind) = pieces(model).ok_or_else(|| invalid("not a SentencePiece model"))?;
    if let Some(kind) = kind.filter(|kind| *kind != BPE) {
        // Pieces of other kinds are chosen by likelihood: as merges they would be cut wrongly, without a word.
        let name = ["unigram", "BPE", "word", "character"].get((kind as usize).wrapping_sub(1)).unwrap_or(&"unknown");
        return Err(invalid("a SentencePiece model of another kind").expected("BPE", name));
    }
    let vocab: BTreeMap<&str, usize> = pieces.iter().enumerate().map(|(i, p)| (p.text.as_str(), i)).collect();
    if vocab.len() != pieces.len() || pieces.is_empty() {
        return Err(invalid("pieces of the same text, or none").expected(pieces.len(), vocab.len()));
    }
    let added = match added {
        Some(list) => Added { tokens: appended(list, &vocab)?, ..Added::upstream(|_| true) },
        None if new > 0 => Added::upstream(|t| vocab.contains_key(t)),
        None => Added::default(),
    };
    if added.tokens.len() != new {
        return Err(invalid("the added tokens are not the config's")
            .expected(format!("num_new_token {new}"), added.tokens.len()));
    }
    let mut list: Vec<Value> = pieces
        .iter()
        .enumerate()
        .filter(|(_, p)| p.kind == 2 || p.kind == 3)
        .map(|(i, p)| special(i, &p.text))
        .collect();
    list.extend(added.entries(pieces.len())?);
    let unknown = pieces.iter().find(|p| p.kind == 2).map(|p| p.text.as_str());
    let start =
        |side: &str| json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": side, "type_id": 0}}]);
    let post = vocab.get("<s>").map(|bos| {
        let mut pair = start("A");
        if let Some(p) = pair.as_array_mut() {
            p.extend([
                json!({"SpecialToken": {"id": "<s>", "type_id": 1}}),
                json!({"Sequence": {"id": "B", "type_id": 1}}),
            ]);
        }
        json!({"type": "TemplateProcessing", "single": start("A"), "pair": pair,
               "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}}})
    });
    let bytes = pieces.iter().any(|p| p.kind == 6);
    to_bytes(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": list,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": post,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false, "vocab": vocab, "merges": merges(&pieces, &vocab)},
    }))
}

/// `added_tokens.json` (text to id) as a list of what follows the vocabulary without a gap.
fn appended(list: &Value, vocab: &BTreeMap<&str, usize>) -> Result<Vec<String>> {
    let map = list.as_object().ok_or_else(|| invalid("added_tokens.json is not a JSON object"))?;
    let mut new: Vec<(u64, &String)> = Vec::new();
    for (text, id) in map {
        let id = id.as_u64().ok_or_else(|| invalid("an added token's id is not a number").at(text))?;
        match vocab.get(text.as_str()) {
            Some(own) if *own as u64 == id => {}
            Some(own) => return Err(invalid("an added token has another id in the model").expected(own, id).at(text)),
            None => new.push((id, text)),
        }
    }
    new.sort_unstable();
    for (i, (id, text)) in new.iter().enumerate() {
        if *id != (vocab.len() + i) as u64 {
            return Err(invalid("the added tokens do not follow the vocabulary")
                .expected(vocab.len() + i, id)
                .at(text));
        }
    }
    Ok(new.into_iter().map(|(_, t)| t.clone()).collect())
}

/// The merges that give every piece of the vocabulary its score's rank, as transformers' converter derives them.
fn merges<'a>(pieces: &'a [Piece], vocab: &BTreeMap<&str, usize>) -> Vec<(&'a str, &'a str)> {
    let mut all = Vec::new();
    for piece in pieces {
        let mut own: Vec<(usize, usize, (&str, &str))> = Vec::new();
        for (at, _) in piece.text.char_indices().skip(1) {
            let (l, r) = piece.text.split_at(at);
            if let (Some(a), Some(b)) = (vocab.get(l), vocab.get(r)) {
                own.push((*a, *b, (l, r)));
            }
        }
        own.sort_unstable();
        all.extend(
            own.into_iter().map(|(_, _, pair)| (piece.score, pair.0.chars().count(), pair.1.chars().count(), pair)),
        );
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    all.into_iter().map(|m| m.3).collect()
}

/// A protobuf field: its number, and a number or bytes.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 127) << shift;
        if first & 128 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (now, later) = bytes.split_at_checked(n)?;
    *bytes = later;
    Some(now)
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let key = varint(bytes)?;
    match key & 7 {
        0 => Some(Field::Number(key >> 3, varint(bytes)?)),
        1 => Some(Field::Bytes(key >> 3, take(bytes, 8)?)),
        2 => {
            let n = usize::try_from(varint(bytes)?).ok()?;
            Some(Field::Bytes(key >> 3, take(bytes, n)?))
        }
        5 => Some(Field::Bytes(key >> 3, take(bytes, 4)?)),
        _ => None,
    }
}

/// SentencePiece's `model_type` of byte-pair encoding.
const BPE: u64 = 2;

/// The pieces of a `ModelProto` (field 1: text 1, score 2, type 3) and its kind (field 2, the trainer's settings:
/// `model_type` 3), where it says one; the other fields are skipped.
fn pieces(mut model: &[u8]) -> Option<(Vec<Piece>, Option<u64>)> {
    let (mut out, mut kind) = (Vec::new(), None);
    while !model.is_empty() {
        let mut body = match field(&mut model)? {
            Field::Bytes(1, body) => body,
            Field::Bytes(2, mut settings) => {
                while !settings.is_empty() {
                    if let Field::Number(3, number) = field(&mut settings)? {
                        kind = Some(number);
                    }
                }
                continue;
            }
            _ => continue,
        };
        let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
        while !body.is_empty() {
            match field(&mut body)? {
                Field::Bytes(1, text) => piece.text = std::str::from_utf8(text).ok()?.to_owned(),
                Field::Bytes(2, score) => piece.score = f32::from_le_bytes(score.try_into().ok()?),
                Field::Number(3, kind) => piece.kind = kind,
                _ => {}
            }
        }
        out.push(piece);
    }
    Some((out, kind))
}

/// The tokenizer of a folder: `tokenizer.json`, else one made of `tokenizer.model`; `None` where there is neither.
pub(crate) fn of_folder(dir: &Path, config: &Value) -> Result<Option<Vec<u8>>> {
    let read = |name: &str| -> Result<Option<Vec<u8>>> {
        let path = dir.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let blob = super::weights::Blob::open(&path)?;
        if blob.len > MAX_TOKENIZER {
            return Err(invalid("the tokenizer is too large")
                .expected(format!("at most {MAX_TOKENIZER} bytes"), blob.len)
                .at(path.display()));
        }
        blob.read(0, blob.len as usize).map(Some)
    };
    if let Some(json) = read("tokenizer.json")? {
        return Ok(Some(json));
    }
    let Some(model) = read("tokenizer.model")? else { return Ok(None) };
    let added = dir.join("added_tokens.json");
    let added = if added.is_file() { Some(read_json(&added)?) } else { None };
    let new = config["num_new_token"].as_u64().unwrap_or(0) as usize;
    from_sentencepiece(&model, added.as_ref(), new).at("tokenizer.model").at(dir.display()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_protobufs_are_no_models() {
        assert_eq!(pieces(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), None);
        assert_eq!(pieces(&[0x0a, 5, 1]), None);
        assert_eq!(pieces(&[0xff; 20]), None);
        assert_eq!(pieces(&[]), Some((vec![], None)));
    }

    #[test]
    fn only_byte_pair_models_are_taken() {
        // a piece "a", then the trainer's settings with a model type
        let of = |kind: u8| [&[0x0a, 3, 0x0a, 1, b'a', 0x12, 2, 0x18][..], &[kind]].concat();
        assert!(from_sentencepiece(&of(2), None, 0).is_ok());
        let e = from_sentencepiece(&of(1), None, 0).unwrap_err();
        assert!(e.to_string().contains("expected BPE, got unigram"), "{e}");
        assert!(from_sentencepiece(&of(9), None, 0).unwrap_err().to_string().contains("unknown"));
    }

    #[test]
    fn upstream_adds_what_is_not_there() {
        assert_eq!(Added::upstream(|t| ["<s>", "</s>", "<unk>"].contains(&t)).tokens.len(), 114);
        assert_eq!(Added::upstream(|_| false).tokens.len(), 117);
    }
}
