//! What tensors are called: upstream's names and their aliases (golden/README.md 2), llama.cpp's names in
//! `decoder.gguf`.

use std::collections::BTreeMap;

/// The prefix below which the proposer's heads are registered twice.
const PROPOSER: &str = "perceiver.ddetr_transformer.";
const HEADS: [&str; 4] = ["bbox_embed", "class_embed_coco", "class_embed_sa1b", "class_embed_enc"];

/// Official name of a tensor that a checkpoint calls `raw`: adds the `perceiver.` prefix that checkpoints of the first
/// training stage lack and removes the proposer's second registration. `None` for what is ignored (`inv_freq`).
pub(crate) fn official(raw: &str) -> Option<String> {
    if raw.ends_with("rotary_emb.inv_freq") {
        return None;
    }
    let stage_one = ["vis_encoder.", "ddetr_transformer.", "input_proj."];
    let name = if stage_one.iter().any(|p| raw.starts_with(p)) { format!("perceiver.{raw}") } else { raw.to_owned() };
    let second = name.strip_prefix(PROPOSER).and_then(|tail| tail.strip_prefix("decoder."));
    Some(match second {
        Some(tail) if HEADS.iter().any(|h| tail.strip_prefix(h).is_some_and(|t| t.starts_with('.'))) => {
            format!("{PROPOSER}{tail}")
        }
        _ => name,
    })
}

/// Whether a checkpoint's own name is already the official one, so that it wins over an alias of the same tensor.
pub(crate) fn is_official(raw: &str) -> bool {
    official(raw).as_deref() == Some(raw)
}

/// The name under which a head shared by all layers is stored: `bbox_embed.2.…` → `bbox_embed.0.…`.
pub(crate) fn shared_head(name: &str) -> Option<String> {
    let (head, index, rest) = head_index(name)?;
    (index != "0").then(|| format!("{PROPOSER}{head}.0.{rest}"))
}

fn head_index(name: &str) -> Option<(&str, &str, &str)> {
    let tail = name.strip_prefix(PROPOSER)?;
    let (head, tail) = tail.split_once('.')?;
    let (index, rest) = tail.split_once('.')?;
    (HEADS.contains(&head) && index.bytes().all(|b| b.is_ascii_digit())).then_some((head, index, rest))
}

/// Looks a name up among canonical names. A head may stand for all layers' if it is stored with index 0 only; with any
/// other index present a missing one is missing.
pub(crate) fn resolve<'a, T>(tensors: &'a BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    if let Some(t) = tensors.get(name) {
        return Some(t);
    }
    let shared = shared_head(name)?;
    let (head, _, rest) = head_index(name)?;
    let prefix = format!("{PROPOSER}{head}.");
    let others = tensors
        .range(prefix.clone()..)
        .take_while(|(k, _)| k.starts_with(&prefix))
        .any(|(k, _)| head_index(k).is_some_and(|(_, i, r)| i != "0" && r == rest));
    if others { None } else { tensors.get(&shared) }
}

/// llama.cpp's name and upstream's, where they are parts of a layer.
const LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// llama.cpp's name and upstream's, outside the layers; the last two are ours.
const WHOLE: [(&str, &str); 5] = [
    ("token_embd.weight", "llm.model.embed_tokens.weight"),
    ("output_norm.weight", "llm.model.norm.weight"),
    ("output.weight", "llm.lm_head.weight"),
    ("groma.new_input_embs", "new_input_embs.weight"),
    ("groma.extra_lm_head", "extra_lm_head.weight"),
];

/// Upstream's name of a tensor in a llama.cpp file; other names are given back as they are.
#[must_use]
pub fn from_llama_cpp(name: &str) -> String {
    if let Some((_, ours)) = WHOLE.iter().find(|(theirs, _)| *theirs == name) {
        return (*ours).to_owned();
    }
    let layer = || {
        let (index, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let part = rest.strip_suffix(".weight")?;
        let (_, ours) = LAYER.iter().find(|(theirs, _)| *theirs == part)?;
        index.bytes().all(|b| b.is_ascii_digit()).then(|| format!("llm.model.layers.{index}.{ours}.weight"))
    };
    layer().unwrap_or_else(|| name.to_owned())
}

/// llama.cpp's name of a tensor of the language model, or `None` where the tensor is not the language model's.
#[must_use]
pub fn to_llama_cpp(name: &str) -> Option<String> {
    if let Some((theirs, _)) = WHOLE.iter().find(|(_, ours)| *ours == name) {
        return Some((*theirs).to_owned());
    }
    let (index, rest) = name.strip_prefix("llm.model.layers.")?.split_once('.')?;
    let part = rest.strip_suffix(".weight")?;
    let (theirs, _) = LAYER.iter().find(|(_, ours)| *ours == part)?;
    Some(format!("blk.{index}.{theirs}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_become_official() {
        let twice = "perceiver.ddetr_transformer.decoder.bbox_embed.3.layers.0.bias";
        assert_eq!(official(twice).unwrap(), "perceiver.ddetr_transformer.bbox_embed.3.layers.0.bias");
        assert_eq!(official("input_proj.0.0.weight").unwrap(), "perceiver.input_proj.0.0.weight");
        let layer = "perceiver.ddetr_transformer.decoder.layers.0.fc1.weight";
        assert_eq!(official(layer).unwrap(), layer, "only heads are registered twice");
        assert_eq!(official("llm.model.layers.0.self_attn.rotary_emb.inv_freq"), None);
    }

    #[test]
    fn shared_heads_are_found_only_where_they_are_shared() {
        let name = |i: usize| format!("{PROPOSER}class_embed_coco.{i}.bias");
        let shared = BTreeMap::from([(name(0), 0)]);
        assert_eq!(resolve(&shared, &name(5)), Some(&0));
        let own = BTreeMap::from([(name(0), 0), (name(1), 1)]);
        assert_eq!(resolve(&own, &name(1)), Some(&1));
        assert_eq!(resolve(&own, &name(2)), None, "a missing head of several is missing");
    }

    #[test]
    fn llama_cpp_names_go_both_ways() {
        for (theirs, ours) in [
            ("blk.11.attn_q.weight", "llm.model.layers.11.self_attn.q_proj.weight"),
            ("blk.0.ffn_norm.weight", "llm.model.layers.0.post_attention_layernorm.weight"),
            ("token_embd.weight", "llm.model.embed_tokens.weight"),
            ("output.weight", "llm.lm_head.weight"),
            ("groma.extra_lm_head", "extra_lm_head.weight"),
        ] {
            assert_eq!(from_llama_cpp(theirs), ours);
            assert_eq!(to_llama_cpp(ours).as_deref(), Some(theirs));
        }
        assert_eq!(to_llama_cpp("img_txt_bridge.0.weight"), None);
        assert_eq!(from_llama_cpp("perceiver.input_proj.0.0.bias"), "perceiver.input_proj.0.0.bias");
    }
}
