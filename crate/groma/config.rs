//! `config.json` as upstream writes it, with our extensions: every key that may be absent has its default here.
//!
//! Sections 1 and 11 of the specification; must never know where the file came from.

use serde::Deserialize;
use serde_json::Value;

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
    #[serde(deserialize_with = "or_default")]
    pub eos_token_id: OneOrMany,
}

/// `null` is what some checkpoints write for a key that they could have left out.
fn or_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<OneOrMany, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
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

/// `</s>`, as upstream's Llama has it.
impl Default for OneOrMany {
    fn default() -> Self {
        Self::One(2)
    }
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
            eos_token_id: OneOrMany::default(),
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
    ///
    /// # Errors
    /// `pack-invalid` names the key, what it may be and what it is.
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
}
