//! `config.json` as upstream writes it, with our extensions: every key that may be absent has its default here.
//!
//! Sections 1 and 11 of the specification; must never know where the file came from.

use serde::Deserialize;
use serde_json::Value;

use super::limit;
use crate::error::{Code, Error, Result};

/// The whole model's configuration, defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// NMS: regions of higher IoU than this are suppressed.
    pub nms_thres: f32,
    /// Regions need a higher score than this.
    pub box_score_thres: f32,
    /// Regions kept at most.
    pub max_region_num: usize,
    /// Tokens added to the language model's vocabulary.
    pub num_new_token: usize,
    /// Side of the resized photo, pixels.
    pub image_size: usize,
    /// Patches a side that one image token merges.
    pub image_token_merge: usize,
    /// Prompt form.
    pub chat_template: Template,
    /// LoRA's numerator; absent: the rank.
    pub lora_alpha: Option<f64>,
    /// Which hidden state the image tokens come from, counted from the end when negative.
    pub vis_output_layer: i64,
    /// The image encoder.
    pub vision: Vision,
    /// The region proposer.
    pub proposer: Proposer,
    /// The language model.
    pub llm: Llm,
    /// The region encoder.
    pub region: RegionEncoder,
}

/// How a conversation is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// `USER: … ASSISTANT: …</s>`: what upstream uses.
    #[default]
    Vicuna,
    /// `<|im_start|>user\n…<|im_end|>\n`.
    ChatMl,
}

/// DINOv2.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "upstream's own key names")]
pub struct Vision {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub mlp_ratio: f64,
    pub layer_norm_eps: f32,
    pub image_size: usize,
    pub patch_size: usize,
    pub use_swiglu_ffn: bool,
}

impl Default for Vision {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            layer_norm_eps: 1e-6,
            image_size: 224,
            patch_size: 16,
            use_swiglu_ffn: false,
        }
    }
}

/// Deformable DETR.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "upstream's own key names")]
pub struct Proposer {
    pub d_model: usize,
    pub num_queries: usize,
    pub two_stage_num_proposals: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_ffn_dim: usize,
    pub encoder_attention_heads: usize,
    pub decoder_attention_heads: usize,
    pub encoder_n_points: usize,
    pub decoder_n_points: usize,
    pub num_feature_levels: usize,
    pub two_stage: bool,
    pub with_box_refine: bool,
    pub activation_function: String,
    pub id2label: Option<serde_json::Map<String, Value>>,
}

impl Default for Proposer {
    fn default() -> Self {
        Self {
            d_model: 256,
            num_queries: 300,
            two_stage_num_proposals: 300,
            encoder_layers: 6,
            decoder_layers: 6,
            encoder_ffn_dim: 1024,
            decoder_ffn_dim: 1024,
            encoder_attention_heads: 8,
            decoder_attention_heads: 8,
            encoder_n_points: 4,
            decoder_n_points: 4,
            num_feature_levels: 4,
            two_stage: false,
            with_box_refine: false,
            activation_function: "relu".to_owned(),
            id2label: None,
        }
    }
}

impl Proposer {
    /// Queries of the decoder.
    #[must_use]
    pub fn queries(&self) -> usize {
        if self.two_stage { self.two_stage_num_proposals } else { self.num_queries }
    }
}

/// Llama.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "upstream's own key names")]
pub struct Llm {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub rms_norm_eps: f32,
    pub rope_theta: f64,
    pub rope_scaling: Option<Value>,
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    pub eos_token_id: OneOrMany,
}

/// One id or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl OneOrMany {
    /// As a list.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u32> {
        match self {
            OneOrMany::One(id) => vec![*id],
            OneOrMany::Many(ids) => ids.clone(),
        }
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
            max_position_embeddings: 2048,
            eos_token_id: OneOrMany::One(2),
        }
    }
}

impl Llm {
    /// Heads of keys and values.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    #[must_use]
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }
}

/// The region encoder; upstream has these sizes hard-wired (O-15).
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's own key names (section 11)")]
pub struct RegionEncoder {
    pub embed_dims: Option<usize>,
    pub hidden_dims: usize,
    pub pos_dims: usize,
    pub num_groups: usize,
    pub num_fuse: usize,
    pub roi_size: usize,
    pub level_scales: Vec<usize>,
    pub featmap_strides: Vec<f64>,
    pub box_format: BoxFormat,
}

/// How region boxes enter RoIAlign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxFormat {
    /// As they are: centre form read as corners (O-13).
    CxCyWh,
    /// Converted to corners first.
    Xyxy,
}

impl Default for RegionEncoder {
    fn default() -> Self {
        Self {
            embed_dims: None,
            hidden_dims: 1024,
            pos_dims: 256,
            num_groups: 64,
            num_fuse: 5,
            roi_size: 14,
            level_scales: vec![4, 2, 1],
            featmap_strides: vec![14.0 / 8.0, 14.0 / 4.0, 14.0 / 2.0],
            box_format: BoxFormat::CxCyWh,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct Top {
    nms_thres: f32,
    box_score_thres: f32,
    max_region_num: usize,
    num_new_token: usize,
    image_size: usize,
    image_token_merge: usize,
    chat_template: Template,
    lora_alpha: Option<f64>,
    perceiver_cfg: Perceiver,
    llm_cfg: Llm,
    region_encoder_cfg: RegionEncoder,
}

#[derive(Deserialize)]
#[serde(default)]
struct Perceiver {
    vis_output_layer: i64,
    vis_encoder_cfg: Vision,
    ddetr_cfg: Proposer,
}

impl Default for Perceiver {
    fn default() -> Self {
        Self { vis_output_layer: -1, vis_encoder_cfg: Vision::default(), ddetr_cfg: Proposer::default() }
    }
}

impl Default for Top {
    fn default() -> Self {
        Self {
            nms_thres: 0.6,
            box_score_thres: 0.15,
            max_region_num: 100,
            num_new_token: 0,
            image_size: 448,
            image_token_merge: 2,
            chat_template: Template::default(),
            lora_alpha: None,
            perceiver_cfg: Perceiver::default(),
            llm_cfg: Llm::default(),
            region_encoder_cfg: RegionEncoder::default(),
        }
    }
}

/// Index tokens there are, and so the most regions of a prompt: `<r0>` to `<r99>` (O-27).
pub const INDEX_TOKENS: usize = 100;

impl Config {
    /// Reads `config.json`; refuses what the specification refuses.
    pub fn from_json(json: &Value) -> Result<Self> {
        let parts = [
            "",
            "/perceiver_cfg",
            "/perceiver_cfg/vis_encoder_cfg",
            "/perceiver_cfg/ddetr_cfg",
            "/llm_cfg",
            "/region_encoder_cfg",
        ];
        // serde would take a list for a structure.
        for part in parts {
            if json.pointer(part).is_some_and(|v| !v.is_object()) {
                return Err(Error::new(Code::PackInvalid, "a part of the configuration is not a JSON object")
                    .at(if part.is_empty() { "/" } else { part })
                    .at("config.json"));
            }
        }
        let top = Top::deserialize(json).map_err(|e| {
            Error::new(Code::PackInvalid, format!("a value of the configuration is wrong: {e}")).at("config.json")
        })?;
        let c = Config {
            nms_thres: top.nms_thres,
            box_score_thres: top.box_score_thres,
            max_region_num: top.max_region_num,
            num_new_token: top.num_new_token,
            image_size: top.image_size,
            image_token_merge: top.image_token_merge,
            chat_template: top.chat_template,
            lora_alpha: top.lora_alpha,
            vis_output_layer: top.perceiver_cfg.vis_output_layer,
            vision: top.perceiver_cfg.vis_encoder_cfg,
            proposer: top.perceiver_cfg.ddetr_cfg,
            llm: top.llm_cfg,
            region: top.region_encoder_cfg,
        };
        c.check().map_err(|e| e.at("config.json"))?;
        Ok(c)
    }

    /// Patches a side.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.image_size / self.vision.patch_size
    }

    /// Image tokens of a photo.
    #[must_use]
    pub fn image_tokens(&self) -> usize {
        (self.patches() / self.image_token_merge).pow(2)
    }

    /// Channels of the region encoder's maps.
    #[must_use]
    pub fn region_channels(&self) -> usize {
        self.region.embed_dims.unwrap_or(self.vision.hidden_size)
    }

    /// Height (= width) of every level of the proposer, finest first.
    #[must_use]
    pub fn levels(&self) -> Vec<usize> {
        let (n, h) = (self.proposer.num_feature_levels, self.patches());
        (0..n)
            .map(|l| match if n == 1 { 1 } else { n - 1 - l } {
                0 => h.div_ceil(2),
                1 => h,
                2 => 2 * h,
                _ => 4 * h,
            })
            .collect()
    }

    fn check(&self) -> Result<()> {
        let (v, d, l, r) = (&self.vision, &self.proposer, &self.llm, &self.region);
        let refuse = |what: &str| Err(Error::new(Code::PackInvalid, what));
        let tables = [
            self.image_size,
            v.image_size,
            v.patch_size,
            d.num_queries,
            d.two_stage_num_proposals,
            l.vocab_size,
            l.max_position_embeddings,
            self.max_region_num,
        ];
        let widths = [
            v.hidden_size,
            d.d_model,
            d.encoder_ffn_dim,
            d.decoder_ffn_dim,
            l.hidden_size,
            l.intermediate_size,
            r.hidden_dims,
            r.pos_dims,
            self.region_channels(),
        ];
        let counts = [
            v.num_hidden_layers,
            v.num_attention_heads,
            d.encoder_layers.saturating_add(1), // There may be none.
            d.decoder_layers,
            d.encoder_attention_heads,
            d.decoder_attention_heads,
            l.num_hidden_layers,
            l.num_attention_heads,
            l.kv_heads(),
            r.num_groups,
            r.num_fuse.saturating_add(1),
        ];
        let windows = [d.encoder_n_points, d.decoder_n_points, r.roi_size, self.image_token_merge];
        let groups: [(usize, &[usize]); 5] = [
            (limit::TABLE, &tables),
            (limit::WIDTH, &widths),
            (limit::HEAD, &[l.head_width()]),
            (limit::COUNT, &counts),
            (limit::WINDOW, &windows),
        ];
        if groups.iter().any(|(most, sizes)| sizes.iter().any(|s| *s == 0 || s > most)) {
            return refuse("a size is zero or absurdly large");
        }
        if l.max_position_embeddings.saturating_mul(l.head_width()) > limit::ROPE {
            return refuse("max_position_embeddings is absurdly large");
        }
        if !(v.mlp_ratio > 0.0 && v.mlp_ratio <= 64.0) {
            return refuse("mlp_ratio is no sensible number");
        }
        if v.use_swiglu_ffn {
            return refuse("use_swiglu_ffn is not supported");
        }
        if !v.hidden_size.is_multiple_of(v.num_attention_heads) || !self.image_size.is_multiple_of(v.patch_size) {
            return refuse("the image encoder's sizes do not divide");
        }
        if !self.patches().is_multiple_of(self.image_token_merge) {
            return refuse("image_token_merge does not divide the patches of a side");
        }
        if d.two_stage && !d.with_box_refine {
            return refuse("two_stage needs with_box_refine");
        }
        if !(1..=4).contains(&d.num_feature_levels) {
            return refuse("num_feature_levels must be 1 to 4");
        }
        let finest = self.levels().into_iter().max().unwrap_or(0);
        if finest.max(2 * self.patches()).max(v.image_size / v.patch_size) > limit::SIDE {
            return refuse("absurdly many patches");
        }
        let heads = [d.encoder_attention_heads, d.decoder_attention_heads];
        if heads.iter().any(|h| !d.d_model.is_multiple_of(*h)) || !d.d_model.is_multiple_of(2) {
            return refuse("the proposer's sizes do not divide");
        }
        if d.two_stage && d.queries() > self.levels().iter().map(|s| s * s).sum() {
            return refuse("two_stage_num_proposals is more than there are places to propose");
        }
        if d.activation_function != "relu" {
            return refuse("activation_function must be relu");
        }
        if self.max_region_num > INDEX_TOKENS {
            return refuse("max_region_num is more than there are index tokens (100)");
        }
        if l.rope_scaling.is_some() {
            return refuse("rope_scaling is not supported");
        }
        if !l.num_attention_heads.is_multiple_of(l.kv_heads()) || !l.head_width().is_multiple_of(2) {
            return refuse("the language model's heads do not divide");
        }
        if r.level_scales.len() != r.featmap_strides.len() || r.level_scales.is_empty() || r.level_scales.contains(&0) {
            return refuse("level_scales and featmap_strides must be of one length");
        }
        if r.level_scales.len() > 8 || r.level_scales.iter().any(|s| s.saturating_mul(self.patches()) > limit::SIDE) {
            return refuse("the region encoder's maps are absurdly large");
        }
        if r.featmap_strides.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return refuse("featmap_strides must be positive");
        }
        if !self.region_channels().is_multiple_of(r.num_groups) {
            return refuse("num_groups does not divide the region encoder's channels");
        }
        let states = v.num_hidden_layers + 1;
        // the region encoder reads the last one for each of its levels, the proposer up to four
        if states < r.level_scales.len() || !(-(states as i64)..states as i64).contains(&self.vis_output_layer) {
            return refuse("the image encoder lacks a hidden state that is read (vis_output_layer, level_scales)");
        }
        Ok(())
    }

    /// Refuses a proposer whose number of classes is not one (a checkpoint writes it as the length of `id2label`; O-10).
    pub fn check_classes(&self) -> Result<()> {
        let classes = self.proposer.id2label.as_ref().map_or(2, serde_json::Map::len);
        if classes == 1 {
            return Ok(());
        }
        Err(Error::new(Code::PackInvalid, "the proposer must have one class (id2label)")
            .expected(1, classes)
            .at("config.json"))
    }
}
