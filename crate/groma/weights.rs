//! The list of tensors that each component needs, in upstream's names and shapes, and their way onto the device.
//!
//! Projections that are always used together are stacked into one matrix (q/k/v, gate/up, offsets/weights), so that one
//! product makes them. Must never know a file: it asks for tensors by name.

use std::collections::HashMap;

use super::config::Config;
use crate::error::{At, Code, Error, Result};
use crate::pack::Source;
use crate::tensor::plan::Run;
use crate::tensor::{DType, Device, Tensor, blocks};

/// What becomes of a tensor on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A matrix `[first axis, the rest]`, kept in its stored type.
    Matrix,
    /// Norm weights, biases, small tables: f32.
    Vector,
    /// Only the host needs it, as f32.
    Host,
}

/// One tensor of the device and the upstream tensors whose rows it stacks.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Our name: upstream's, or that of the stack.
    pub name: String,
    /// Upstream's names and shapes, in the order of the stack.
    pub sources: Vec<(String, Vec<usize>)>,
    /// What becomes of it.
    pub kind: Kind,
}

/// Which components a source holds: stage folders and single bases hold only some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Components {
    /// The image encoder.
    pub encoder: bool,
    /// The region proposer.
    pub proposer: bool,
    /// The region encoder.
    pub regions: bool,
    /// Image tokens to the language model's width.
    pub bridge: bool,
    /// The language model.
    pub llm: bool,
}

/// Prefix of the image encoder's tensors.
pub(super) const VIS: &str = "perceiver.vis_encoder.";
/// Prefix of the proposer's tensors.
pub(super) const DET: &str = "perceiver.ddetr_transformer.";

impl Components {
    /// What a source holds, told by one tensor each.
    #[must_use]
    pub fn of(source: &dyn Source) -> Self {
        let has = |name: &str| source.info(name).is_some();
        Self {
            encoder: has("perceiver.vis_encoder.embeddings.cls_token"),
            proposer: has("perceiver.ddetr_transformer.level_embed"),
            regions: has("region_encoder.roi_align.updims.weight"),
            bridge: has("img_txt_bridge.0.weight"),
            llm: has("llm.model.embed_tokens.weight"),
        }
    }
}

struct List<'a> {
    specs: Vec<Spec>,
    shape_of: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

impl List<'_> {
    fn one(&mut self, kind: Kind, name: String, shape: &[usize]) {
        self.specs.push(Spec { name: name.clone(), sources: vec![(name, shape.to_vec())], kind });
    }

    fn vector(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.one(Kind::Vector, name.into(), shape);
    }

    fn matrix(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.one(Kind::Matrix, name.into(), shape);
    }

    fn host(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.one(Kind::Host, name.into(), shape);
    }

    /// A linear layer with bias.
    fn linear(&mut self, stem: &str, out: usize, inner: usize) {
        self.matrix(format!("{stem}.weight"), &[out, inner]);
        self.vector(format!("{stem}.bias"), &[out]);
    }

    fn norm(&mut self, stem: &str, n: usize) {
        self.vector(format!("{stem}.weight"), &[n]);
        self.vector(format!("{stem}.bias"), &[n]);
    }

    fn conv(&mut self, stem: &str, out: usize, inner: usize, side: usize, bias: bool) {
        self.matrix(format!("{stem}.weight"), &[out, inner, side, side]);
        if bias {
            self.vector(format!("{stem}.bias"), &[out]);
        }
    }

    /// Linear layers with bias, stacked under `name`.
    fn stack(&mut self, name: &str, parts: &[(String, usize)], inner: usize) {
        let of = |tail: &str, shape: &dyn Fn(usize) -> Vec<usize>| {
            parts.iter().map(|(stem, out)| (format!("{stem}.{tail}"), shape(*out))).collect()
        };
        let weights = of("weight", &|out| vec![out, inner]);
        let biases = of("bias", &|out| vec![out]);
        self.specs.push(Spec { name: format!("{name}.weight"), sources: weights, kind: Kind::Matrix });
        self.specs.push(Spec { name: format!("{name}.bias"), sources: biases, kind: Kind::Vector });
    }

    fn encoder(&mut self, c: &Config) {
        let (v, d) = (&c.vision, c.vision.hidden_size);
        let grid = v.image_size / v.patch_size;
        self.host(format!("{VIS}embeddings.cls_token"), &[1, 1, d]);
        self.host(format!("{VIS}embeddings.position_embeddings"), &[1, 1 + grid * grid, d]);
        self.conv(&format!("{VIS}embeddings.patch_embeddings.projection"), d, 3, v.patch_size, true);
        let inner = (d as f64 * v.mlp_ratio) as usize;
        for i in 0..v.num_hidden_layers {
            let p = format!("{VIS}encoder.layer.{i}.");
            self.norm(&format!("{p}norm1"), d);
            self.norm(&format!("{p}norm2"), d);
            let qkv = ["query", "key", "value"].map(|n| (format!("{p}attention.attention.{n}"), d));
            self.stack(&format!("{p}attention.qkv"), &qkv, d);
            self.linear(&format!("{p}attention.output.dense"), d, d);
            self.linear(&format!("{p}mlp.fc1"), inner, d);
            self.linear(&format!("{p}mlp.fc2"), d, inner);
            self.vector(format!("{p}layer_scale1.lambda1"), &[d]);
            self.vector(format!("{p}layer_scale2.lambda1"), &[d]);
        }
    }

    fn proposer(&mut self, c: &Config) {
        let (p, d, vis) = (&c.proposer, c.proposer.d_model, c.vision.hidden_size);
        let levels = p.num_feature_levels;
        for l in 0..levels {
            let stem = |j: usize| format!("perceiver.input_proj.{l}.{j}");
            match if levels == 1 { 1 } else { levels - 1 - l } {
                0 => {
                    self.conv(&stem(0), d, vis, 3, true);
                    self.norm(&stem(1), d);
                }
                1 => {
                    self.conv(&stem(0), d, vis, 1, true);
                    self.norm(&stem(1), d);
                }
                2 => {
                    self.transposed(&stem(0), vis, d / 2);
                    self.conv(&stem(1), d, d / 2, 1, true);
                    self.norm(&stem(2), d);
                    self.conv(&stem(3), d, d, 3, true);
                }
                _ => {
                    self.transposed(&stem(0), vis, d / 2);
                    self.norm(&stem(1), d / 2);
                    self.transposed(&stem(3), d / 2, d / 4);
                    self.conv(&stem(4), d, d / 4, 1, true);
                    self.norm(&stem(5), d);
                    self.conv(&stem(6), d, d, 3, true);
                }
            }
        }
        self.host(format!("{DET}level_embed"), &[levels, d]);
        let table = if p.two_stage { d } else { 2 * d };
        self.host(format!("{DET}query_position_embeddings.weight"), &[p.queries(), table]);
        for i in 0..p.encoder_layers {
            let e = format!("{DET}encoder.layers.{i}.");
            self.deformable(&format!("{e}self_attn"), p.encoder_attention_heads * levels * p.encoder_n_points, d);
            self.norm(&format!("{e}self_attn_layer_norm"), d);
            self.linear(&format!("{e}fc1"), p.encoder_ffn_dim, d);
            self.linear(&format!("{e}fc2"), d, p.encoder_ffn_dim);
            self.norm(&format!("{e}final_layer_norm"), d);
        }
        for i in 0..p.decoder_layers {
            let e = format!("{DET}decoder.layers.{i}.");
            let qk = ["q_proj", "k_proj"].map(|n| (format!("{e}self_attn.{n}"), d));
            self.stack(&format!("{e}self_attn.qk_proj"), &qk, d);
            self.linear(&format!("{e}self_attn.v_proj"), d, d);
            self.linear(&format!("{e}self_attn.out_proj"), d, d);
            self.norm(&format!("{e}self_attn_layer_norm"), d);
            self.deformable(&format!("{e}encoder_attn"), p.decoder_attention_heads * levels * p.decoder_n_points, d);
            self.norm(&format!("{e}encoder_attn_layer_norm"), d);
            self.linear(&format!("{e}fc1"), p.decoder_ffn_dim, d);
            self.linear(&format!("{e}fc2"), d, p.decoder_ffn_dim);
            self.norm(&format!("{e}final_layer_norm"), d);
        }
        let last = p.decoder_layers - 1;
        if p.two_stage {
            self.linear(&format!("{DET}enc_output"), d, d);
            self.norm(&format!("{DET}enc_output_norm"), d);
            self.linear(&format!("{DET}pos_trans"), 2 * d, 2 * d);
            self.norm(&format!("{DET}pos_trans_norm"), 2 * d);
            self.linear(&format!("{DET}class_embed_enc"), 1, d);
            self.box_head(p.decoder_layers, d);
        } else {
            self.host(format!("{DET}reference_points.weight"), &[2, d]);
            self.host(format!("{DET}reference_points.bias"), &[2]);
        }
        self.box_head(last, d);
        if last > 0 && p.with_box_refine {
            self.box_head(last - 1, d);
        }
        self.linear(&format!("{DET}class_embed_coco.{last}"), 1, d);
        self.linear(&format!("{DET}class_embed_sa1b.{last}"), 1, d);
    }

    /// The hidden width is the file's (O-9: 256 whatever `d_model` is).
    fn box_head(&mut self, i: usize, d: usize) {
        let stem = format!("{DET}bbox_embed.{i}.layers.");
        let hidden = (self.shape_of)(&format!("{stem}0.weight")).and_then(|s| s.first().copied()).unwrap_or(256);
        self.linear(&format!("{stem}0"), hidden, d);
        self.linear(&format!("{stem}1"), hidden, hidden);
        self.linear(&format!("{stem}2"), 4, hidden);
    }

    fn transposed(&mut self, stem: &str, inner: usize, out: usize) {
        self.matrix(format!("{stem}.weight"), &[inner, out, 2, 2]);
        self.vector(format!("{stem}.bias"), &[out]);
    }

    fn deformable(&mut self, stem: &str, samples: usize, d: usize) {
        let parts = [(format!("{stem}.sampling_offsets"), 2 * samples), (format!("{stem}.attention_weights"), samples)];
        self.stack(&format!("{stem}.sampling"), &parts, d);
        self.linear(&format!("{stem}.value_proj"), d, d);
        self.linear(&format!("{stem}.output_proj"), d, d);
    }

    fn regions(&mut self, c: &Config) {
        let (r, e, d) = (&c.region, c.region_channels(), c.vision.hidden_size);
        for l in 0..r.level_scales.len() {
            self.conv(&format!("region_encoder.mlvl_fuse.input_conv.{l}"), e, d + 2, 1, true);
            self.conv(&format!("region_encoder.roi_align.pconvs.{l}"), e, e, 3, true);
        }
        for i in 0..r.num_fuse {
            let stem = format!("region_encoder.mlvl_fuse.fuse_convs.{i}.");
            self.conv(&format!("{stem}conv"), e, e, 3, false);
            self.norm(&format!("{stem}gn"), e);
        }
        let pos = "region_encoder.roi_align.pos_embedd.";
        self.linear(&format!("{pos}0"), r.pos_dims, 4);
        self.norm(&format!("{pos}2"), r.pos_dims);
        self.linear(&format!("{pos}3"), r.hidden_dims, r.pos_dims);
        self.norm(&format!("{pos}5"), r.hidden_dims);
        self.linear("region_encoder.roi_align.flatten_linear", r.hidden_dims, e * r.roi_size * r.roi_size);
        self.linear("region_encoder.roi_align.updims", c.llm.hidden_size, r.hidden_dims);
    }

    fn llm(&mut self, c: &Config) {
        let (l, h, w) = (&c.llm, c.llm.hidden_size, c.llm.head_width());
        self.matrix("llm.model.embed_tokens.weight", &[l.vocab_size, h]);
        if !l.tie_word_embeddings {
            self.matrix("llm.lm_head.weight", &[l.vocab_size, h]);
        }
        if c.num_new_token > 0 {
            self.matrix("new_input_embs.weight", &[c.num_new_token, h]);
            self.matrix("extra_lm_head.weight", &[c.num_new_token, h]);
        }
        self.vector("llm.model.norm.weight", &[h]);
        for i in 0..l.num_hidden_layers {
            let p = format!("llm.model.layers.{i}.");
            let (q, kv) = (l.num_attention_heads * w, l.kv_heads() * w);
            let stacked = |names: &[(&str, usize)]| {
                names.iter().map(|(n, out)| (format!("{p}{n}.weight"), vec![*out, h])).collect()
            };
            self.specs.push(Spec {
                name: format!("{p}self_attn.qkv_proj.weight"),
                sources: stacked(&[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)]),
                kind: Kind::Matrix,
            });
            self.matrix(format!("{p}self_attn.o_proj.weight"), &[h, q]);
            self.specs.push(Spec {
                name: format!("{p}mlp.gate_up_proj.weight"),
                sources: stacked(&[("mlp.gate_proj", l.intermediate_size), ("mlp.up_proj", l.intermediate_size)]),
                kind: Kind::Matrix,
            });
            self.matrix(format!("{p}mlp.down_proj.weight"), &[h, l.intermediate_size]);
            self.vector(format!("{p}input_layernorm.weight"), &[h]);
            self.vector(format!("{p}post_attention_layernorm.weight"), &[h]);
        }
    }
}

/// All tensors that `components` need. `shape_of` tells the shape of a tensor of the source (box heads take their width
/// from it).
#[must_use]
pub fn specs(c: &Config, components: Components, shape_of: &dyn Fn(&str) -> Option<Vec<usize>>) -> Vec<Spec> {
    let mut list = List { specs: Vec::new(), shape_of };
    if components.encoder {
        list.encoder(c);
    }
    if components.proposer {
        list.proposer(c);
    }
    if components.regions {
        list.regions(c);
    }
    if components.bridge {
        let (k, h) = (c.image_token_merge, c.llm.hidden_size);
        list.linear("img_txt_bridge.0", h, c.vision.hidden_size * k * k);
        list.linear("img_txt_bridge.2", h, h);
    }
    if components.llm {
        list.llm(c);
    }
    list.specs
}

/// Weights on a device, by name.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, Tensor>,
    host: HashMap<String, Vec<f32>>,
}

impl Weights {
    /// Reads all of `specs` from `source` onto `device`.
    ///
    /// # Errors
    /// `pack-invalid` for a missing tensor, a wrong shape; `aborted`.
    pub async fn load(specs: &[Spec], source: &dyn Source, device: &Device, run: &Run<'_>) -> Result<Self> {
        let mut all = Self::default();
        for (i, spec) in specs.iter().enumerate() {
            run.breathe().await?;
            all.add(spec, source, device).await.at(&spec.name)?;
            run.progress(i + 1, specs.len());
        }
        Ok(all)
    }

    /// Makes all of `specs` on the device, of noise: what a model costs does not depend on what it learned.
    ///
    /// # Errors
    /// `out-of-memory`, `aborted`.
    pub async fn random(specs: &[Spec], quant: DType, device: &Device, run: &Run<'_>) -> Result<Self> {
        let mut all = Self::default();
        for (i, spec) in specs.iter().enumerate() {
            run.breathe().await?;
            let rows: usize = spec.sources.iter().map(|(_, shape)| shape[0]).sum();
            let cols: usize = spec.sources[0].1[1..].iter().product();
            match spec.kind {
                Kind::Matrix => {
                    let dtype = if cols.is_multiple_of(quant.block()) { quant } else { DType::F16 };
                    all.tensors.insert(spec.name.clone(), device.random(&spec.name, &[rows, cols], dtype)?);
                }
                // norms that keep what they norm near 1
                Kind::Vector => {
                    let t = device.tensor_f32(&spec.name, &[rows * cols], &vec![0.5; rows * cols])?;
                    all.tensors.insert(spec.name.clone(), t);
                }
                Kind::Host => {
                    all.host.insert(spec.name.clone(), vec![0.5; rows * cols]);
                }
            }
            run.progress(i + 1, specs.len());
        }
        Ok(all)
    }

    async fn add(&mut self, spec: &Spec, source: &dyn Source, device: &Device) -> Result<()> {
        let mut types = Vec::new();
        let mut rows = 0;
        for (name, shape) in &spec.sources {
            let info = source.info(name).ok_or_else(|| {
                Error::new(Code::PackInvalid, "the tensor is missing").expected(format!("{shape:?}"), "none").at(name)
            })?;
            if &info.shape != shape {
                return Err(Error::new(Code::PackInvalid, "the tensor has the wrong shape")
                    .expected(format!("{shape:?}"), format!("{:?}", info.shape))
                    .at(name)
                    .at(source.file(name).unwrap_or_default()));
            }
            rows += shape[0];
            types.push(info.dtype);
        }
        let cols: usize = spec.sources[0].1[1..].iter().product();
        if spec.kind == Kind::Matrix && types.iter().all(|t| *t == types[0]) {
            let mut upload = device.begin(&spec.name, &[rows, cols], types[0])?;
            for (name, _) in &spec.sources {
                source.send(name, &mut upload).await.at(name)?;
            }
            self.tensors.insert(spec.name.clone(), upload.finish()?);
            return Ok(());
        }
        let mut parts = Vec::new();
        for ((name, _), dtype) in spec.sources.iter().zip(types) {
            parts.push((dtype, source.read(name)?));
        }
        // A stack of several types (LoRA merged into some of its parts) is widened: the same values, in f32.
        if parts.iter().any(|(dtype, _)| *dtype != parts[0].0) {
            for (dtype, bytes) in &mut parts {
                let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block()];
                blocks::decode(*dtype, bytes, &mut values);
                (*dtype, *bytes) = (DType::F32, bytemuck::cast_slice(&values).to_vec());
            }
        }
        let dtype = parts.first().map(|(dtype, _)| *dtype);
        let bytes = match parts.len() {
            1 => parts.remove(0).1,
            _ => parts.iter().flat_map(|(_, b)| b).copied().collect(),
        };
        let dtype = dtype.ok_or_else(|| Error::internal("a stack of nothing"))?;
        match spec.kind {
            Kind::Matrix => {
                self.tensors.insert(spec.name.clone(), device.tensor(&spec.name, &[rows, cols], dtype, &bytes)?);
            }
            Kind::Vector | Kind::Host => {
                let count = rows * cols;
                if bytes.len() != dtype.row_bytes(count)? {
                    return Err(Error::new(Code::PackInvalid, "the tensor has the wrong number of bytes")
                        .expected(dtype.row_bytes(count)?, bytes.len()));
                }
                let mut values = vec![0.0; count];
                blocks::decode(dtype, &bytes, &mut values);
                if spec.kind == Kind::Host {
                    self.host.insert(spec.name.clone(), values);
                } else {
                    self.tensors.insert(
                        spec.name.clone(),
                        device.tensor(&spec.name, &[count], DType::F32, bytemuck::cast_slice(&values))?,
                    );
                }
            }
        }
        Ok(())
    }

    /// A tensor of the device.
    ///
    /// # Errors
    /// `internal` for a name that the list of weights does not have.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::internal("a weight was not listed").at(name))
    }

    /// A tensor of the host.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn host(&self, name: &str) -> Result<&[f32]> {
        self.host.get(name).map(Vec::as_slice).ok_or_else(|| Error::internal("a weight was not listed").at(name))
    }

    /// Weight and bias of a linear layer.
    pub(super) fn linear(&self, stem: &str) -> Result<crate::tensor::ops::Linear> {
        let bias = self.get(&format!("{stem}.bias"))?;
        Ok(crate::tensor::ops::Linear::new(self.get(&format!("{stem}.weight"))?, Some(bias)))
    }

    /// Weight and bias of a norm or convolution.
    pub(super) fn pair(&self, stem: &str) -> Result<(&Tensor, &Tensor)> {
        Ok((self.get(&format!("{stem}.weight"))?, self.get(&format!("{stem}.bias"))?))
    }

    /// The types of all matrices.
    pub fn types(&self) -> impl Iterator<Item = DType> {
        self.tensors.values().filter(|t| t.shape().len() > 1).map(Tensor::dtype)
    }

    /// Bytes of all weights as stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(Tensor::bytes).sum()
    }
}
