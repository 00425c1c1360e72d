//! The language model (specification 9): a Llama over token, image and region rows, with its cache.
//!
//! One plan is recorded for a chunk of prompt rows and one for a decode step; both read their position from a small state
//! on the device, so that they run again and again as they are.

use super::config::Config;
use super::weights::Weights;
use crate::error::Result;
use crate::tensor::ops::argmax::state;
use crate::tensor::ops::{self, Cache, Linear, Projection, Tables};
use crate::tensor::plan::TapForm;
use crate::tensor::{DType, Device, Plan, Tensor, Value};

/// Tokens that the history holds: how many a GPU may choose before the host looks. With sixteen a
/// look, run and look together are one submit in eight tokens.
pub const HISTORY: usize = 16;

/// What a conversation keeps on the device.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Keys and values of every layer.
    pub caches: Vec<Cache>,
    /// See [`state`].
    pub state: Tensor,
    /// Row codes of the chunk that is being read, `[capacity]`.
    pub codes: Tensor,
    /// Tokens chosen, a ring.
    pub history: Tensor,
    /// The vocabulary's logits of the last step, `[1, V]`.
    pub logits: Tensor,
    /// Those of the added tokens, `[1, added]`.
    pub extra: Option<Tensor>,
    /// Rows that fit.
    pub capacity: usize,
}

impl Memory {
    /// Room for `capacity` positions.
    ///
    /// # Errors
    /// `out-of-memory`.
    pub fn new(device: &Device, c: &Config, capacity: usize) -> Result<Self> {
        let l = &c.llm;
        let state = device.zeros("decoder.state", &[state::LEN], DType::U32)?;
        let kv = [capacity, l.kv_heads() * l.head_width()];
        let place = |name: &str, i: usize| device.zeros(&format!("kv.{name}.{i}"), &kv, DType::F32);
        let caches = (0..l.num_hidden_layers)
            .map(|i| Ok(Cache { k: place("k", i)?, v: place("v", i)?, state: state.clone() }))
            .collect::<Result<_>>()?;
        Ok(Self {
            caches,
            codes: device.zeros("decoder.codes", &[capacity], DType::U32)?,
            history: device.zeros("decoder.history", &[HISTORY], DType::U32)?,
            logits: device.zeros("decoder.logits", &[1, l.vocab_size], DType::F32)?,
            extra: (c.num_new_token > 0)
                .then(|| device.zeros("decoder.extra_logits", &[1, c.num_new_token], DType::F32))
                .transpose()?,
            state,
            capacity,
        })
    }

    /// Room for `capacity` positions, of which the first `kept` hold what they held. Tensor by tensor, so that never more
    /// than one of them is there twice; the caller has dropped the plans that bind them.
    ///
    /// # Errors
    /// `out-of-memory`: the cache is then of no use.
    pub fn grow(&mut self, device: &Device, capacity: usize, kept: usize) -> Result<()> {
        for cache in &mut self.caches {
            for t in [&mut cache.k, &mut cache.v] {
                let more = device.zeros(t.label(), &[capacity, t.cols()], DType::F32)?;
                if kept > 0 {
                    device.copy(t, &more, kept * t.cols())?;
                }
                *t = more;
            }
        }
        self.codes = device.zeros("decoder.codes", &[capacity], DType::U32)?;
        self.capacity = capacity;
        Ok(())
    }
}

/// What follows the last layer of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing: more rows follow.
    None,
    /// Logits of the last row, for the host to sample from.
    Logits,
    /// Logits and the greedy choice, on the device.
    Greedy,
}

/// Records `rows` prompt rows: their codes are in `memory.codes`, their position in the state.
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
#[expect(clippy::too_many_arguments, reason = "a recording names all that it binds")]
pub fn record_chunk(
    p: &mut Plan,
    c: &Config,
    w: &Weights,
    rope: &Tensor,
    memory: &Memory,
    image: Option<&Tensor>,
    regions: Option<&Tensor>,
    rows: usize,
    ending: Ending,
) -> Result<()> {
    p.stage("decoder.embed");
    let tables = tables(c, w, image, regions)?;
    let x = ops::embed(p, &memory.codes, 0, rows, &tables)?;
    p.tap("llm.embeds", x, TapForm::Rows)?;
    let x = layers(p, c, w, rope, memory, x)?;
    if ending == Ending::None {
        return Ok(());
    }
    p.stage("decoder.head");
    let x = if rows > 1 { ops::last_row(p, x, &memory.state) } else { x };
    head(p, c, w, memory, x, ending)
}

/// Records one step: the token in the state is embedded, its successor chosen (greedily or by the host).
///
/// # Errors
/// `internal` where a weight is missing or shapes do not fit: whoever loaded the model has checked both.
pub fn record_step(
    p: &mut Plan,
    c: &Config,
    w: &Weights,
    rope: &Tensor,
    memory: &Memory,
    ending: Ending,
) -> Result<()> {
    p.stage("decoder.embed");
    let tables = tables(c, w, None, None)?;
    let x = ops::embed(p, &memory.state, state::TOKEN, 1, &tables)?;
    let x = layers(p, c, w, rope, memory, x)?;
    p.stage("decoder.head");
    head(p, c, w, memory, x, ending)
}

fn tables(c: &Config, w: &Weights, image: Option<&Tensor>, regions: Option<&Tensor>) -> Result<Tables> {
    let added = if c.num_new_token > 0 { Some(w.get("new_input_embs.weight")?.clone()) } else { None };
    Ok(Tables {
        tokens: w.get("llm.model.embed_tokens.weight")?.clone(),
        added,
        image: image.cloned(),
        regions: regions.cloned(),
    })
}

fn layers(p: &mut Plan, c: &Config, w: &Weights, rope: &Tensor, memory: &Memory, mut x: Value) -> Result<Value> {
    let l = &c.llm;
    let (heads, kv, width) = (l.num_attention_heads, l.kv_heads(), l.head_width());
    for (i, cache) in memory.caches.iter().enumerate() {
        p.stage(format!("decoder.{i}"));
        let get = |name: &str| w.get(&format!("llm.model.layers.{i}.{name}.weight"));
        let projection = Projection {
            norm: get("input_layernorm")?.clone(),
            eps: l.rms_norm_eps,
            weight: get("self_attn.qkv_proj")?.clone(),
            rope: rope.clone(),
        };
        let q = ops::qkv(p, x, &projection, cache, heads, kv, width)?;
        let y = ops::cached_attention(p, q, cache, heads, kv, width)?;
        x = ops::linear(p, y, Linear::new(get("self_attn.o_proj")?, None).residual(x))?;
        let norm = get("post_attention_layernorm")?;
        let y = ops::gate_up(p, x, Some((norm, l.rms_norm_eps)), get("mlp.gate_up_proj")?)?;
        x = ops::linear(p, y, Linear::new(get("mlp.down_proj")?, None).residual(x))?;
        p.tap(format!("llm.layer{i}"), x, TapForm::Rows)?;
    }
    Ok(x)
}

fn head(p: &mut Plan, c: &Config, w: &Weights, memory: &Memory, x: Value, ending: Ending) -> Result<()> {
    let x = ops::rms_norm(p, x, w.get("llm.model.norm.weight")?, c.llm.rms_norm_eps)?;
    let table = if c.llm.tie_word_embeddings { "llm.model.embed_tokens.weight" } else { "llm.lm_head.weight" };
    ops::linear_into(p, x, &Linear::new(w.get(table)?, None), &memory.logits)?;
    let logits = p.resident(&memory.logits);
    let mut all = vec![logits];
    if let Some(extra) = &memory.extra {
        ops::linear_into(p, x, &Linear::new(w.get("extra_lm_head.weight")?, None), extra)?;
        all.push(p.resident(extra));
    }
    if ending == Ending::Greedy {
        ops::argmax(p, &all, &memory.state, &memory.history)?;
    }
    Ok(())
}
