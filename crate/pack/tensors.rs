//! The model's list of tensors: names and shapes that a `config.json` asks for (golden/README.md 2.1), and to which
//! component each belongs.

use serde_json::Value;

use crate::error::{Code, Error, Result};

/// A part of the model that is quantised as one. The words are those of `--quant COMPONENT=TYPE` and of `model.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// `encoder`: DINOv2.
    Encoder,
    /// `proposer`: the region proposer with its input projections and heads.
    Proposer,
    /// `region_encoder`: fusion, pooling and projection of region features.
    RegionEncoder,
    /// `bridge`: image tokens to the language model's width.
    Bridge,
    /// `embedding`: the decoder's token table and the added tokens' rows.
    Embedding,
    /// `attention`: the decoder's query, key, value and output projections.
    Attention,
    /// `mlp`: the decoder's gate, up and down projections.
    Mlp,
    /// `head`: the decoder's output matrix, where it is not tied, and the added tokens' rows.
    Head,
}

impl Component {
    /// All components.
    pub const ALL: [Self; 8] = [
        Self::Encoder,
        Self::Proposer,
        Self::RegionEncoder,
        Self::Bridge,
        Self::Embedding,
        Self::Attention,
        Self::Mlp,
        Self::Head,
    ];

    /// The component's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Proposer => "proposer",
            Self::RegionEncoder => "region_encoder",
            Self::Bridge => "bridge",
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Mlp => "mlp",
            Self::Head => "head",
        }
    }

    /// The component of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == word)
    }
}

/// What a tensor is to the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Multiplied with, or looked up in: may be quantised.
    Matrix,
    /// Added: stays a float.
    Table,
    /// Norms, biases, scales: stays f32.
    Vector,
}

/// The group without which there is no model at all.
pub(crate) const ENCODER: &str = "encoder";
/// The group that comes last in training.
pub(crate) const LANGUAGE_MODEL: &str = "language model";

/// A tensor that a config asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// `None` where the size is the file's own affair.
    pub(crate) shape: Vec<Option<usize>>,
    pub(crate) component: Component,
    pub(crate) role: Role,
    /// No stage needs it.
    pub(crate) optional: bool,
    /// The component as people call it; where parts of a model may lack, it is all there or not at all.
    pub(crate) group: &'static str,
}

impl Wanted {
    /// Whether a tensor has the wanted shape.
    pub(crate) fn fits(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(|(w, s)| w.is_none_or(|w| w == *s))
    }

    /// The wanted shape as people read it: `[4, any]`.
    pub(crate) fn shape_text(&self) -> String {
        let axes: Vec<String> = self.shape.iter().map(|a| a.map_or("any".into(), |n| n.to_string())).collect();
        format!("[{}]", axes.join(", "))
    }
}

/// Numbers of a config with the defaults of golden/README.md 1 and 11.
struct Numbers<'a>(&'a Value, &'static str);

impl Numbers<'_> {
    fn get(&self, key: &str, default: usize) -> Result<usize> {
        self.up_to(key, default, 1 << 24)
    }

    /// Of what there are few, or what is squared: layers, sides of windows.
    fn few(&self, key: &str, default: usize) -> Result<usize> {
        self.up_to(key, default, 1 << 10)
    }

    fn up_to(&self, key: &str, default: usize, most: u64) -> Result<usize> {
        match &self.0[key] {
            Value::Null => Ok(default),
            v => v
                .as_u64()
                .filter(|n| *n <= most)
                .map(|n| n as usize)
                .ok_or_else(|| self.wrong(key, &format!("a whole number up to {most}"), v)),
        }
    }

    /// What one size is of another: `4` or `4.0`.
    fn ratio(&self, key: &str, default: f64) -> Result<f64> {
        match &self.0[key] {
            Value::Null => Ok(default),
            v => v
                .as_f64()
                .filter(|n| *n > 0.0 && *n <= 64.0)
                .ok_or_else(|| self.wrong(key, "a number above 0, up to 64", v)),
        }
    }

    fn wrong(&self, key: &str, want: &str, got: &Value) -> Error {
        let e = Error::new(Code::PackInvalid, "not a size").expected(want, got);
        e.at(format!("{}.{key}", self.1)).at("config.json")
    }

    fn flag(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or(false)
    }
}

struct List {
    tensors: Vec<Wanted>,
    component: Component,
    group: &'static str,
    optional: bool,
}

impl List {
    fn part(&mut self, component: Component, group: &'static str) {
        (self.component, self.group, self.optional) = (component, group, false);
    }

    fn push(&mut self, name: String, shape: Vec<Option<usize>>, role: Role) {
        let (component, group, optional) = (self.component, self.group, self.optional);
        self.tensors.push(Wanted { name, shape, component, role, optional, group });
    }

    fn matrix(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.push(name.into(), shape.iter().map(|n| Some(*n)).collect(), Role::Matrix);
    }

    fn table(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.push(name.into(), shape.iter().map(|n| Some(*n)).collect(), Role::Table);
    }

    fn vector(&mut self, name: impl Into<String>, n: usize) {
        self.push(name.into(), vec![Some(n)], Role::Vector);
    }

    /// Weight of any shape `[out, …]` and bias.
    fn linear(&mut self, name: &str, shape: &[usize]) {
        self.matrix(format!("{name}.weight"), shape);
        self.vector(format!("{name}.bias"), shape[0]);
    }

    fn norm(&mut self, name: &str, n: usize) {
        self.vector(format!("{name}.weight"), n);
        self.vector(format!("{name}.bias"), n);
    }
}

/// All tensors of the model that `config` describes.
///
/// # Errors
/// `pack-invalid` for sizes that are no numbers, and for what golden/README.md refuses.
pub(crate) fn wanted(config: &Value) -> Result<Vec<Wanted>> {
    let vis = Numbers(&config["perceiver_cfg"]["vis_encoder_cfg"], "vis_encoder_cfg");
    let det = Numbers(&config["perceiver_cfg"]["ddetr_cfg"], "ddetr_cfg");
    let llm = Numbers(&config["llm_cfg"], "llm_cfg");
    let (d, h) = (vis.get("hidden_size", 768)?, llm.get("hidden_size", 4096)?);
    let mut list = List { tensors: Vec::new(), component: Component::Encoder, group: ENCODER, optional: false };
    encoder(&mut list, &vis, d)?;
    proposer(&mut list, &det, d)?;
    list.part(Component::Bridge, "bridge");
    let merge = Numbers(config, "config").few("image_token_merge", 2)?;
    list.linear("img_txt_bridge.0", &[h, d * merge * merge]);
    list.linear("img_txt_bridge.2", &[h, h]);
    region_encoder(&mut list, &config["region_encoder_cfg"], d, h)?;
    decoder(&mut list, &llm, h)?;
    let new = Numbers(config, "config").get("num_new_token", 0)?;
    if new > 0 {
        list.part(Component::Embedding, "added tokens");
        list.matrix("new_input_embs.weight", &[new, h]);
        list.part(Component::Head, "added tokens");
        list.matrix("extra_lm_head.weight", &[new, h]);
    }
    Ok(list.tensors)
}

fn encoder(list: &mut List, vis: &Numbers<'_>, d: usize) -> Result<()> {
    let (p, layers) = (vis.few("patch_size", 16)?, vis.few("num_hidden_layers", 12)?);
    let (grid, wide) = (vis.get("image_size", 224)? / p.max(1), (d as f64 * vis.ratio("mlp_ratio", 4.0)?) as usize);
    let root = "perceiver.vis_encoder";
    list.table(format!("{root}.embeddings.cls_token"), &[1, 1, d]);
    list.table(format!("{root}.embeddings.position_embeddings"), &[1, 1 + grid * grid, d]);
    list.linear(&format!("{root}.embeddings.patch_embeddings.projection"), &[d, 3, p, p]);
    for i in 0..layers {
        let l = format!("{root}.encoder.layer.{i}");
        list.norm(&format!("{l}.norm1"), d);
        for part in ["attention.query", "attention.key", "attention.value", "output.dense"] {
            list.linear(&format!("{l}.attention.{part}"), &[d, d]);
        }
        list.vector(format!("{l}.layer_scale1.lambda1"), d);
        list.norm(&format!("{l}.norm2"), d);
        list.linear(&format!("{l}.mlp.fc1"), &[wide, d]);
        list.linear(&format!("{l}.mlp.fc2"), &[d, wide]);
        list.vector(format!("{l}.layer_scale2.lambda1"), d);
    }
    list.optional = true;
    list.norm(&format!("{root}.layernorm"), d);
    Ok(())
}

fn proposer(list: &mut List, det: &Numbers<'_>, d: usize) -> Result<()> {
    list.part(Component::Proposer, "proposer");
    let (w, levels) = (det.get("d_model", 256)?, det.few("num_feature_levels", 4)?);
    for l in 0..levels {
        input_projection(
            list,
            &format!("perceiver.input_proj.{l}"),
            if levels == 1 { 1 } else { levels - 1 - l },
            d,
            w,
        )?;
    }
    let root = "perceiver.ddetr_transformer";
    let two_stage = det.flag("two_stage");
    let queries = det.get(if two_stage { "two_stage_num_proposals" } else { "num_queries" }, 300)?;
    let layers = det.few("decoder_layers", 6)?;
    list.table(format!("{root}.level_embed"), &[levels, w]);
    list.table(format!("{root}.query_position_embeddings.weight"), &[queries, if two_stage { w } else { 2 * w }]);
    let deformable = |list: &mut List, name: &str, heads: usize, points: usize| {
        list.linear(&format!("{name}.sampling_offsets"), &[heads * levels * points * 2, w]);
        list.linear(&format!("{name}.attention_weights"), &[heads * levels * points, w]);
        list.linear(&format!("{name}.value_proj"), &[w, w]);
        list.linear(&format!("{name}.output_proj"), &[w, w]);
        list.norm(&format!("{name}_layer_norm"), w);
    };
    for (side, count) in [("encoder", det.few("encoder_layers", 6)?), ("decoder", layers)] {
        let heads =
            det.get(if side == "encoder" { "encoder_attention_heads" } else { "decoder_attention_heads" }, 8)?;
        let points = det.get(if side == "encoder" { "encoder_n_points" } else { "decoder_n_points" }, 4)?;
        let ffn = det.get(if side == "encoder" { "encoder_ffn_dim" } else { "decoder_ffn_dim" }, 1024)?;
        for i in 0..count {
            let l = format!("{root}.{side}.layers.{i}");
            if side == "encoder" {
                deformable(list, &format!("{l}.self_attn"), heads, points);
            } else {
                for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    list.linear(&format!("{l}.self_attn.{part}"), &[w, w]);
                }
                list.norm(&format!("{l}.self_attn_layer_norm"), w);
                deformable(list, &format!("{l}.encoder_attn"), heads, points);
            }
            list.linear(&format!("{l}.fc1"), &[ffn, w]);
            list.linear(&format!("{l}.fc2"), &[w, ffn]);
            list.norm(&format!("{l}.final_layer_norm"), w);
        }
    }
    if two_stage {
        list.linear(&format!("{root}.enc_output"), &[w, w]);
        list.norm(&format!("{root}.enc_output_norm"), w);
        list.linear(&format!("{root}.pos_trans"), &[2 * w, 2 * w]);
        list.norm(&format!("{root}.pos_trans_norm"), 2 * w);
    } else {
        list.linear(&format!("{root}.reference_points"), &[2, w]);
    }
    for i in 0..layers + usize::from(two_stage) {
        // As wide as the file has it, whatever d_model is (O-9).
        let mut head = |j: usize, shape: [Option<usize>; 2]| {
            let name = format!("{root}.bbox_embed.{i}.layers.{j}");
            list.push(format!("{name}.weight"), shape.to_vec(), Role::Matrix);
            list.push(format!("{name}.bias"), vec![shape[0]], Role::Vector);
        };
        head(0, [None, Some(w)]);
        head(1, [None, None]);
        head(2, [Some(4), None]);
    }
    for i in 0..layers {
        list.optional = i + 1 < layers; // Only the last layer's class scores are read.
        list.linear(&format!("{root}.class_embed_coco.{i}"), &[1, w]);
        list.linear(&format!("{root}.class_embed_sa1b.{i}"), &[1, w]);
    }
    list.optional = !two_stage;
    list.linear(&format!("{root}.class_embed_enc"), &[1, w]);
    Ok(())
}

/// The input projection of one level, of a kind as golden/README.md 6.1 counts them.
fn input_projection(list: &mut List, name: &str, kind: usize, d: usize, w: usize) -> Result<()> {
    let at = |i: usize| format!("{name}.{i}");
    let deconv = |list: &mut List, i: usize, from: usize, to: usize| {
        list.matrix(format!("{name}.{i}.weight"), &[from, to, 2, 2]);
        list.vector(format!("{name}.{i}.bias"), to);
    };
    match kind {
        0 => {
            list.linear(&at(0), &[w, d, 3, 3]);
            list.norm(&at(1), w);
        }
        1 => {
            list.linear(&at(0), &[w, d, 1, 1]);
            list.norm(&at(1), w);
        }
        2 => {
            deconv(list, 0, d, w / 2);
            list.linear(&at(1), &[w, w / 2, 1, 1]);
            list.norm(&at(2), w);
            list.linear(&at(3), &[w, w, 3, 3]);
        }
        3 => {
            deconv(list, 0, d, w / 2);
            list.norm(&at(1), w / 2);
            deconv(list, 3, w / 2, w / 4);
            list.linear(&at(4), &[w, w / 4, 1, 1]);
            list.norm(&at(5), w);
            list.linear(&at(6), &[w, w, 3, 3]);
        }
        _ => {
            return Err(Error::new(Code::PackInvalid, "too many levels")
                .expected("1 to 4", kind + 1)
                .at("ddetr_cfg.num_feature_levels")
                .at("config.json"));
        }
    }
    Ok(())
}

fn region_encoder(list: &mut List, config: &Value, d: usize, h: usize) -> Result<()> {
    list.part(Component::RegionEncoder, "region encoder");
    let reg = Numbers(config, "region_encoder_cfg");
    let (e, hidden, pos) = (reg.get("embed_dims", d)?, reg.get("hidden_dims", 1024)?, reg.get("pos_dims", 256)?);
    let (fuse, roi) = (reg.few("num_fuse", 5)?, reg.few("roi_size", 14)?);
    let levels = config["level_scales"].as_array().map_or(3, Vec::len);
    for l in 0..levels {
        list.linear(&format!("region_encoder.mlvl_fuse.input_conv.{l}"), &[e, d + 2, 1, 1]);
    }
    for i in 0..fuse {
        list.matrix(format!("region_encoder.mlvl_fuse.fuse_convs.{i}.conv.weight"), &[e, e, 3, 3]);
        list.norm(&format!("region_encoder.mlvl_fuse.fuse_convs.{i}.gn"), e);
    }
    let root = "region_encoder.roi_align";
    for l in 0..levels {
        list.linear(&format!("{root}.pconvs.{l}"), &[e, e, 3, 3]);
    }
    list.linear(&format!("{root}.pos_embedd.0"), &[pos, 4]);
    list.norm(&format!("{root}.pos_embedd.2"), pos);
    list.linear(&format!("{root}.pos_embedd.3"), &[hidden, pos]);
    list.norm(&format!("{root}.pos_embedd.5"), hidden);
    list.linear(&format!("{root}.flatten_linear"), &[hidden, e * roi * roi]);
    list.linear(&format!("{root}.updims"), &[h, hidden]);
    Ok(())
}

fn decoder(list: &mut List, llm: &Numbers<'_>, h: usize) -> Result<()> {
    let group = LANGUAGE_MODEL;
    let heads = llm.get("num_attention_heads", 32)?;
    let (kv, width) = (llm.get("num_key_value_heads", heads)?, llm.get("head_dim", h / heads.max(1))?);
    let (vocab, ffn) = (llm.get("vocab_size", 32000)?, llm.get("intermediate_size", 11008)?);
    list.part(Component::Embedding, group);
    list.matrix("llm.model.embed_tokens.weight", &[vocab, h]);
    for i in 0..llm.few("num_hidden_layers", 32)? {
        let l = format!("llm.model.layers.{i}");
        list.part(Component::Attention, group);
        list.vector(format!("{l}.input_layernorm.weight"), h);
        for (part, shape) in
            [("q", [heads * width, h]), ("k", [kv * width, h]), ("v", [kv * width, h]), ("o", [h, heads * width])]
        {
            list.matrix(format!("{l}.self_attn.{part}_proj.weight"), &shape);
        }
        list.part(Component::Mlp, group);
        list.vector(format!("{l}.post_attention_layernorm.weight"), h);
        for (part, shape) in [("gate", [ffn, h]), ("up", [ffn, h]), ("down", [h, ffn])] {
            list.matrix(format!("{l}.mlp.{part}_proj.weight"), &shape);
        }
    }
    list.part(Component::Head, group);
    list.vector("llm.model.norm.weight", h);
    if !llm.flag("tie_word_embeddings") {
        list.matrix("llm.lm_head.weight", &[vocab, h]);
    }
    Ok(())
}
