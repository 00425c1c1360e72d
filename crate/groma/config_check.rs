//! What a configuration must hold for the engine to take it (sections 1 and 11 of the specification). A refusal names the
//! key, what it may be and what it is.

use std::fmt::Display;

use super::config::{Config, INDEX_TOKENS};
use super::limit;
use crate::error::{Code, Error, Result};

const TOP: &str = "";
const EYES: &str = "perceiver_cfg.vis_encoder_cfg.";
const PROPOSER: &str = "perceiver_cfg.ddetr_cfg.";
const LLM: &str = "llm_cfg.";
const REGIONS: &str = "region_encoder_cfg.";

/// `pack-invalid` with the key's whole path, unless `fine`.
fn want(fine: bool, part: &str, key: &str, expected: impl Display, got: impl Display) -> Result<()> {
    if fine {
        return Ok(());
    }
    let e = Error::new(Code::PackInvalid, "the configuration has a value that the engine can't take");
    Err(e.expected(expected, got).at(format!("{part}{key}")))
}

/// A number that must divide into equal shares.
fn divides(part: &str, key: &str, value: usize, by: usize, what: &str) -> Result<()> {
    want(value.is_multiple_of(by), part, key, format!("a multiple of {by} ({what})"), value)
}

impl Config {
    /// Refuses what the specification refuses, and sizes beyond all reason before memory is taken for them.
    pub(super) fn check(&self) -> Result<()> {
        self.check_sizes()?;
        self.check_eyes()?;
        self.check_proposer()?;
        self.check_language()?;
        self.check_regions()
    }

    /// Refuses a proposer whose number of classes is not one (a checkpoint writes it as the length of `id2label`; O-10).
    ///
    /// # Errors
    /// `pack-invalid`.
    pub fn check_classes(&self) -> Result<()> {
        let classes = self.proposer.id2label.as_ref().map_or(2, serde_json::Map::len);
        want(classes == 1, PROPOSER, "id2label", "one class", classes).map_err(|e| e.at("config.json"))
    }

    /// Every number that memory or time grows with.
    fn check_sizes(&self) -> Result<()> {
        let (v, d, l, r) = (&self.vision, &self.proposer, &self.llm, &self.region);
        let sizes = [
            (limit::TABLE, TOP, "image_size", self.image_size),
            (limit::TABLE, TOP, "max_region_num", self.max_region_num),
            (limit::TABLE, EYES, "image_size", v.image_size),
            (limit::TABLE, EYES, "patch_size", v.patch_size),
            (limit::TABLE, PROPOSER, "num_queries", d.num_queries),
            (limit::TABLE, PROPOSER, "two_stage_num_proposals", d.two_stage_num_proposals),
            (limit::TABLE, LLM, "vocab_size", l.vocab_size),
            (limit::TABLE, LLM, "max_position_embeddings", l.max_position_embeddings),
            (limit::WIDTH, EYES, "hidden_size", v.hidden_size),
            (limit::WIDTH, PROPOSER, "d_model", d.d_model),
            (limit::WIDTH, PROPOSER, "encoder_ffn_dim", d.encoder_ffn_dim),
            (limit::WIDTH, PROPOSER, "decoder_ffn_dim", d.decoder_ffn_dim),
            (limit::WIDTH, LLM, "hidden_size", l.hidden_size),
            (limit::WIDTH, LLM, "intermediate_size", l.intermediate_size),
            (limit::WIDTH, REGIONS, "hidden_dims", r.hidden_dims),
            (limit::WIDTH, REGIONS, "pos_dims", r.pos_dims),
            (limit::WIDTH, REGIONS, "embed_dims", self.region_channels()),
            (limit::COUNT, EYES, "num_hidden_layers", v.num_hidden_layers),
            (limit::COUNT, EYES, "num_attention_heads", v.num_attention_heads),
            (limit::COUNT, PROPOSER, "decoder_layers", d.decoder_layers),
            (limit::COUNT, PROPOSER, "encoder_attention_heads", d.encoder_attention_heads),
            (limit::COUNT, PROPOSER, "decoder_attention_heads", d.decoder_attention_heads),
            (limit::COUNT, LLM, "num_hidden_layers", l.num_hidden_layers),
            (limit::COUNT, LLM, "num_attention_heads", l.num_attention_heads),
            (limit::COUNT, LLM, "num_key_value_heads", l.kv_heads()),
            (limit::COUNT, REGIONS, "num_groups", r.num_groups),
            (limit::WINDOW, PROPOSER, "encoder_n_points", d.encoder_n_points),
            (limit::WINDOW, PROPOSER, "decoder_n_points", d.decoder_n_points),
            (limit::WINDOW, REGIONS, "roi_size", r.roi_size),
            (limit::WINDOW, TOP, "image_token_merge", self.image_token_merge),
            // last: without its own key it is a share of what was looked at above
            (limit::HEAD, LLM, "head_dim", l.head_width()),
        ];
        for (most, part, key, size) in sizes {
            want((1..=most).contains(&size), part, key, format!("1 to {most}"), size)?;
        }
        // there may be none of these
        for (part, key, count) in [(PROPOSER, "encoder_layers", d.encoder_layers), (REGIONS, "num_fuse", r.num_fuse)] {
            want(count < limit::COUNT, part, key, format!("0 to {}", limit::COUNT - 1), count)?;
        }
        let (positions, most) = (l.max_position_embeddings, limit::ROPE / l.head_width());
        want(positions <= most, LLM, "max_position_embeddings", format!("at most {most}"), positions)
    }

    fn check_eyes(&self) -> Result<()> {
        let v = &self.vision;
        let ratio = v.mlp_ratio > 0.0 && v.mlp_ratio <= 64.0;
        want(ratio, EYES, "mlp_ratio", "more than 0, at most 64", v.mlp_ratio)?;
        want(!v.use_swiglu_ffn, EYES, "use_swiglu_ffn", "false", v.use_swiglu_ffn)?;
        divides(EYES, "hidden_size", v.hidden_size, v.num_attention_heads, "num_attention_heads")?;
        divides(TOP, "image_size", self.image_size, v.patch_size, "patch_size")?;
        let k = self.image_token_merge;
        let patches = self.patches();
        want(patches.is_multiple_of(k), TOP, "image_token_merge", format!("a divisor of {patches} patches a side"), k)?;
        let table = v.image_size / v.patch_size;
        want(table <= limit::SIDE, EYES, "image_size", format!("at most {} patches a side", limit::SIDE), table)?;
        let (states, layer) = (v.num_hidden_layers as i64 + 1, self.vis_output_layer);
        let there = (-states..states).contains(&layer);
        want(there, "perceiver_cfg.", "vis_output_layer", format!("{} to {}", -states, states - 1), layer)
    }

    fn check_proposer(&self) -> Result<()> {
        let d = &self.proposer;
        let levels = d.num_feature_levels;
        want((1..=4).contains(&levels), PROPOSER, "num_feature_levels", "1 to 4", levels)?;
        let refined = d.with_box_refine || !d.two_stage;
        want(refined, PROPOSER, "with_box_refine", "true, as two_stage is", d.with_box_refine)?;
        let sides = self.levels();
        let finest = sides.iter().copied().max().unwrap_or(0).max(2 * self.patches());
        let most = limit::SIDE;
        want(finest <= most, TOP, "image_size", format!("at most {most} cells a side of the finest map"), finest)?;
        divides(PROPOSER, "d_model", d.d_model, d.encoder_attention_heads, "encoder_attention_heads")?;
        divides(PROPOSER, "d_model", d.d_model, d.decoder_attention_heads, "decoder_attention_heads")?;
        divides(PROPOSER, "d_model", d.d_model, 2, "sine and cosine")?;
        let places: usize = sides.iter().map(|s| s * s).sum();
        let (fits, queries) = (!d.two_stage || d.queries() <= places, d.queries());
        want(fits, PROPOSER, "two_stage_num_proposals", format!("at most {places}, the places there are"), queries)?;
        want(d.activation_function == "relu", PROPOSER, "activation_function", "relu", &d.activation_function)
    }

    fn check_language(&self) -> Result<()> {
        let l = &self.llm;
        let scaling = l.rope_scaling.as_ref().map_or_else(String::new, ToString::to_string);
        want(l.rope_scaling.is_none(), LLM, "rope_scaling", "null", scaling)?;
        divides(LLM, "num_attention_heads", l.num_attention_heads, l.kv_heads(), "num_key_value_heads")?;
        divides(LLM, "head_dim", l.head_width(), 2, "pairs that are rotated")
    }

    fn check_regions(&self) -> Result<()> {
        let r = &self.region;
        let regions = self.max_region_num;
        want(
            regions <= INDEX_TOKENS,
            TOP,
            "max_region_num",
            format!("at most {INDEX_TOKENS}, the index tokens"),
            regions,
        )?;
        let (scales, strides, states) = (&r.level_scales, &r.featmap_strides, self.vision.num_hidden_layers + 1);
        let most = states.min(8);
        let count = (1..=most).contains(&scales.len());
        want(count, REGIONS, "level_scales", format!("1 to {most} levels, of a hidden state each"), scales.len())?;
        let widest = limit::SIDE / self.patches();
        let sensible = scales.iter().all(|s| (1..=widest).contains(s));
        want(sensible, REGIONS, "level_scales", format!("numbers from 1 to {widest}"), format!("{scales:?}"))?;
        let alike = strides.len() == scales.len();
        want(
            alike,
            REGIONS,
            "featmap_strides",
            format!("{} numbers, as level_scales has", scales.len()),
            strides.len(),
        )?;
        let positive = strides.iter().all(|s| s.is_finite() && *s > 0.0);
        want(positive, REGIONS, "featmap_strides", "positive numbers", format!("{strides:?}"))?;
        divides(REGIONS, "embed_dims", self.region_channels(), r.num_groups, "num_groups")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What a configuration of the given keys is refused with; without keys there is nothing to refuse.
    fn refused(pointer: &str, value: Value) -> String {
        let mut config = json!({ "perceiver_cfg": { "vis_encoder_cfg": { "patch_size": 14 }, "ddetr_cfg": {} },
            "llm_cfg": {}, "region_encoder_cfg": {} });
        Config::from_json(&config).expect("the defaults are fine");
        let (part, key) = pointer.rsplit_once('/').expect("a pointer");
        config.pointer_mut(part).expect("a part")[key] = value;
        let e = Config::from_json(&config).expect_err(pointer);
        assert_eq!(e.code, Code::PackInvalid, "{e}");
        e.to_string()
    }

    #[test]
    fn a_refusal_names_key_expected_and_got() {
        for (pointer, value, key, mismatch) in [
            ("/perceiver_cfg/vis_encoder_cfg/hidden_size", json!(0), "", "expected 1 to 131072, got 0"),
            ("/llm_cfg/vocab_size", json!(1u64 << 40), "", "expected 1 to 16777216, got 1099511627776"),
            ("/llm_cfg/max_position_embeddings", json!(1 << 20), "", "expected at most 262144, got 1048576"),
            ("/region_encoder_cfg/num_fuse", json!(4096), "", "expected 0 to 1023, got 4096"),
            ("/perceiver_cfg/vis_encoder_cfg/mlp_ratio", json!(-4), "", "expected more than 0, at most 64, got -4"),
            ("/perceiver_cfg/vis_encoder_cfg/use_swiglu_ffn", json!(true), "", "expected false, got true"),
            (
                "/perceiver_cfg/vis_encoder_cfg/num_attention_heads",
                json!(5),
                "perceiver_cfg.vis_encoder_cfg.hidden_size",
                "expected a multiple of 5 (num_attention_heads), got 768",
            ),
            ("/image_size", json!(450), "", "expected a multiple of 14 (patch_size), got 450"),
            ("/image_token_merge", json!(3), "", "expected a divisor of 32 patches a side, got 3"),
            ("/perceiver_cfg/vis_output_layer", json!(13), "", "expected -13 to 12, got 13"),
            ("/perceiver_cfg/ddetr_cfg/num_feature_levels", json!(5), "", "expected 1 to 4, got 5"),
            (
                "/perceiver_cfg/ddetr_cfg/two_stage",
                json!(true),
                "perceiver_cfg.ddetr_cfg.with_box_refine",
                "expected true, as two_stage is, got false",
            ),
            (
                "/perceiver_cfg/ddetr_cfg/decoder_attention_heads",
                json!(7),
                "perceiver_cfg.ddetr_cfg.d_model",
                "expected a multiple of 7 (decoder_attention_heads), got 256",
            ),
            ("/perceiver_cfg/ddetr_cfg/activation_function", json!("gelu"), "", "expected relu, got gelu"),
            ("/llm_cfg/rope_scaling", json!({ "factor": 2 }), "", "expected null, got {\"factor\":2}"),
            (
                "/llm_cfg/num_key_value_heads",
                json!(5),
                "llm_cfg.num_attention_heads",
                "expected a multiple of 5 (num_key_value_heads), got 32",
            ),
            ("/llm_cfg/head_dim", json!(63), "", "expected a multiple of 2 (pairs that are rotated), got 63"),
            ("/max_region_num", json!(101), "", "expected at most 100, the index tokens, got 101"),
            ("/region_encoder_cfg/level_scales", json!([]), "", "levels, of a hidden state each, got 0"),
            ("/region_encoder_cfg/level_scales", json!([1, 0, 2]), "", "got [1, 0, 2]"),
            ("/region_encoder_cfg/featmap_strides", json!([1.0]), "", "expected 3 numbers, as level_scales has, got 1"),
            ("/region_encoder_cfg/featmap_strides", json!([1, 2, -3]), "", "got [1.0, 2.0, -3.0]"),
            (
                "/region_encoder_cfg/num_groups",
                json!(7),
                "region_encoder_cfg.embed_dims",
                "expected a multiple of 7 (num_groups), got 768",
            ),
        ] {
            let own = pointer.trim_start_matches('/').replace('/', ".");
            let key = if key.is_empty() { &own } else { key };
            let text = refused(pointer, value);
            assert!(text.starts_with(&format!("config.json: {key}: ")), "{text}");
            assert!(text.ends_with(mismatch), "{text}");
        }
    }

    #[test]
    fn more_proposals_than_places_are_refused() {
        let two_stage = json!({ "two_stage": true, "with_box_refine": true, "num_feature_levels": 1 });
        let mut config = json!({ "image_size": 28, "perceiver_cfg": { "vis_encoder_cfg": { "patch_size": 14 },
            "ddetr_cfg": two_stage } });
        let e = Config::from_json(&config).expect_err("four places");
        assert!(e.to_string().ends_with("expected at most 4, the places there are, got 300"), "{e}");
        config["perceiver_cfg"]["ddetr_cfg"]["two_stage_num_proposals"] = json!(4);
        Config::from_json(&config).expect("one each");
    }
}
