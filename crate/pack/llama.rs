//! The metadata of `decoder.gguf`: llama.cpp's keys, out of `config.json` and `tokenizer.json`, so that other readers
//! open the joined file. Added tokens lie beyond llama.cpp's vocabulary, in tensors of ours.

use std::collections::BTreeMap;

use serde_json::Value;

use super::gguf::GgufHead;
use super::write::Meta;
use crate::error::{Code, Error, Result};
use crate::tensor::DType;

/// llama.cpp's token types.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Ids that end an answer.
pub(crate) fn eos(config: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    match &config["llm_cfg"]["eos_token_id"] {
        Value::Array(list) => list.iter().filter_map(id).collect(),
        Value::Null => vec![2],
        one => id(one).into_iter().collect(),
    }
}

/// What every file of a pack says of itself.
pub(crate) fn general(architecture: &str, name: &str, dtype: DType) -> Vec<(String, Meta)> {
    // llama.cpp's `general.file_type`: what most matrices are.
    let file_type = match dtype {
        DType::F32 | DType::U32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
    };
    vec![
        ("general.architecture".into(), Meta::Text(architecture.into())),
        ("general.name".into(), Meta::Text(name.into())),
        ("general.alignment".into(), Meta::U32(32)),
        ("general.file_type".into(), Meta::U32(file_type)),
        ("general.quantization_version".into(), Meta::U32(2)),
    ]
}

/// llama.cpp's hyperparameters, with the defaults of golden/README.md 1.
pub(crate) fn hyperparameters(config: &Value) -> Vec<(String, Meta)> {
    let llm = &config["llm_cfg"];
    let number = |key: &str, default: u32| llm[key].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let float = |key: &str, default: f64| llm[key].as_f64().unwrap_or(default) as f32;
    let (width, heads) = (number("hidden_size", 4096), number("num_attention_heads", 32));
    let head_width = number("head_dim", width / heads.max(1));
    let mut out = Vec::new();
    let mut put = |key: &str, value: Meta| out.push((format!("llama.{key}"), value));
    put("context_length", Meta::U32(number("max_position_embeddings", 2048)));
    put("embedding_length", Meta::U32(width));
    put("block_count", Meta::U32(number("num_hidden_layers", 32)));
    put("feed_forward_length", Meta::U32(number("intermediate_size", 11008)));
    put("attention.head_count", Meta::U32(heads));
    put("attention.head_count_kv", Meta::U32(number("num_key_value_heads", heads)));
    put("attention.key_length", Meta::U32(head_width));
    put("attention.value_length", Meta::U32(head_width));
    put("attention.layer_norm_rms_epsilon", Meta::F32(float("rms_norm_eps", 1e-6)));
    put("rope.dimension_count", Meta::U32(head_width));
    put("rope.freq_base", Meta::F32(float("rope_theta", 10000.0)));
    put("vocab_size", Meta::U32(number("vocab_size", 32000)));
    out
}

/// llama.cpp's description of the tokenizer.
///
/// # Errors
/// `pack-invalid` where `tokenizer.json` is no BPE.
pub(crate) fn tokenizer(config: &Value, json: Option<&[u8]>, base: Option<&GgufHead>) -> Result<Vec<(String, Meta)>> {
    let mut out: Vec<(String, Meta)> = Vec::new();
    let mut put = |key: &str, value: Meta| out.push((format!("tokenizer.{key}"), value));
    let Some(json) = json else {
        put("ggml.model", Meta::Text("no_vocab".into()));
        return Ok(out);
    };
    let invalid = |what: &str| Error::new(Code::PackInvalid, what.to_owned()).at("tokenizer.json");
    let json: Value = serde_json::from_slice(json).map_err(|e| invalid(&format!("not valid JSON: {e}")))?;
    let model = &json["model"];
    let vocab = model["vocab"].as_object().ok_or_else(|| invalid("no vocabulary of a BPE model"))?;
    let size = config["llm_cfg"]["vocab_size"].as_u64().unwrap_or(32000).min(1 << 24) as usize;
    let mut tokens = vec![None; size];
    let mut kinds = vec![UNUSED; size];
    let unknown = model["unk_token"].as_str();
    for (text, id) in vocab {
        let Some(id) = id.as_u64().map(|id| id as usize).filter(|id| *id < size) else { continue };
        tokens[id] = Some(text.clone());
        let byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        kinds[id] = if unknown == Some(text) {
            UNKNOWN
        } else if byte {
            BYTE
        } else {
            NORMAL
        };
    }
    for token in json["added_tokens"].as_array().map_or(&[][..], |a| a) {
        let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) else { continue };
        let Some(slot) = tokens.get_mut(id as usize) else { continue };
        *slot = Some(text.to_owned());
        if kinds[id as usize] != UNKNOWN {
            kinds[id as usize] = if token["special"].as_bool() == Some(true) { CONTROL } else { USER_DEFINED };
        }
    }
    let merges: Vec<String> = model["merges"].as_array().map_or(&[][..], |a| a).iter().filter_map(merge).collect();
    let tokens: Vec<String> =
        tokens.into_iter().enumerate().map(|(i, t)| t.unwrap_or_else(|| format!("[PAD{i}]"))).collect();
    // SentencePiece's form marks spaces, in the normalizer or in the pre-tokenizer; the byte-level one has letters for bytes.
    let (normalizer, before) = (json["normalizer"].to_string(), json["pre_tokenizer"].to_string());
    let pieces = normalizer.contains('▁') || before.contains("\"Metaspace\"");
    let prefix = normalizer.contains("\"Prepend\"")
        || before.contains("\"Metaspace\"")
            && !before.contains("\"never\"")
            && !before.contains("\"add_prefix_space\":false");
    put("ggml.model", Meta::Text(if pieces { "llama" } else { "gpt2" }.into()));
    if pieces {
        put("ggml.scores", Meta::F32s(scores(&tokens, &merges)));
    } else {
        let digits = before.contains("\"Digits\"");
        put("ggml.pre", Meta::Text(if digits { "smollm" } else { "gpt-2" }.into()));
        put("ggml.merges", Meta::Texts(merges));
    }
    if let Some(id) = unknown.and_then(|u| tokens.iter().position(|t| t == u)) {
        put("ggml.unknown_token_id", Meta::U32(id as u32));
    }
    put("ggml.tokens", Meta::Texts(tokens));
    put("ggml.token_type", Meta::I32s(kinds));
    for (key, name) in [("bos_token_id", "ggml.bos_token_id"), ("pad_token_id", "ggml.padding_token_id")] {
        if let Some(id) = config["llm_cfg"][key].as_u64().filter(|id| *id < size as u64) {
            put(name, Meta::U32(id as u32));
        }
    }
    if let Some(id) = eos(config).first().filter(|id| (**id as usize) < size) {
        put("ggml.eos_token_id", Meta::U32(*id));
    }
    put("ggml.add_bos_token", Meta::Bool(json["post_processor"].is_object()));
    put("ggml.add_space_prefix", Meta::Bool(prefix));
    if let Some(template) = base.and_then(|b| b.text("tokenizer.chat_template")) {
        put("chat_template", Meta::Text(template.into()));
    }
    Ok(out)
}

/// A merge as GGUF writes it; `tokenizer.json` has pairs or texts.
fn merge(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    }
}

/// Scores that order pieces as the merges do: the earlier a piece is made, the higher.
fn scores(tokens: &[String], merges: &[String]) -> Vec<f32> {
    let mut rank: BTreeMap<String, usize> = BTreeMap::new();
    for (i, m) in merges.iter().enumerate() {
        rank.entry(m.replacen(' ', "", 1)).or_insert(i);
    }
    tokens.iter().map(|t| rank.get(t).map_or(0.0, |r| -(*r as f32))).collect()
}
