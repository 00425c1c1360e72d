//! Independent eyes: candle-transformers' own DINOv2 and Llama on the real bases, against our stages.
//!
//! The bases are brought by `npm run bases`; without them these tests fail and say so.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device as Candle, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{dinov2, llama};
use groma::groma::decoder::Ending;
use groma::groma::prompt::Row;
use groma::pack::{Checkpoint, Source};
use groma::session::{Model, Sources, Text};
use groma::tensor::plan::Run;
use groma::tensor::{Device, blocks};
use pollster::block_on;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read(source: &Checkpoint, name: &str) -> (Vec<usize>, Vec<f32>) {
    let info = source.info(name).unwrap_or_else(|| panic!("{name} is in the base"));
    let mut values = vec![0.0; info.shape.iter().product()];
    blocks::decode(info.dtype, &source.read(name).expect("it is readable"), &mut values);
    (info.shape, values)
}

fn tensor((shape, values): (Vec<usize>, Vec<f32>)) -> Tensor {
    Tensor::from_vec(values, shape, &Candle::Cpu).expect("shape and values agree")
}

/// The greatest difference as a share of the greatest number.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len(), "the same form");
    let greatest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / greatest
}

/// Two f32 implementations that add in different orders.
const ROUNDING: f32 = 1e-4;

/// candle's DINOv2 has the tanh form of GELU, ours and upstream's is the exact one; twelve blocks of it show.
const TANH_GELU: f32 = 5e-3;

#[test]
fn dinov2_as_candle_transformers_has_it() {
    // 518 px, where no positions are resampled; candle's epsilon is 1e-5
    let dir = tempfile::tempdir().expect("a folder for a configuration");
    let config = serde_json::json!({ "image_size": 518, "image_token_merge": 1, "llm_cfg": {}, "perceiver_cfg": {
        "ddetr_cfg": {}, "vis_encoder_cfg": { "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
        "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-5 } } });
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
    let source = Checkpoint::dinov2s(dir.path(), None).expect("the bases are there (npm run bases)");
    let root = "perceiver.vis_encoder.";
    let mut theirs = HashMap::new();
    let mut put = |name: String, t: Tensor| theirs.insert(name, t);
    let get = |name: &str| tensor(read(&source, &format!("{root}{name}")));
    put("cls_token".to_owned(), get("embeddings.cls_token"));
    put("pos_embed".to_owned(), get("embeddings.position_embeddings"));
    for tail in ["weight", "bias"] {
        put(format!("patch_embed.proj.{tail}"), get(&format!("embeddings.patch_embeddings.projection.{tail}")));
        put(format!("norm.{tail}"), get(&format!("layernorm.{tail}")));
        let head: &[usize] = if tail == "weight" { &[1000, 768] } else { &[1000] };
        put(format!("head.{tail}"), Tensor::zeros(head, DType::F32, &Candle::Cpu).expect("zeros"));
    }
    for i in 0..12 {
        let (from, to) = (format!("encoder.layer.{i}."), format!("blocks.{i}."));
        for tail in ["weight", "bias"] {
            let parts = ["query", "key", "value"].map(|n| get(&format!("{from}attention.attention.{n}.{tail}")));
            put(format!("{to}attn.qkv.{tail}"), Tensor::cat(&parts, 0).expect("one width"));
            for (a, b) in [
                ("norm1", "norm1"),
                ("norm2", "norm2"),
                ("attention.output.dense", "attn.proj"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ] {
                put(format!("{to}{b}.{tail}"), get(&format!("{from}{a}.{tail}")));
            }
        }
        put(format!("{to}ls1.gamma"), get(&format!("{from}layer_scale1.lambda1")));
        put(format!("{to}ls2.gamma"), get(&format!("{from}layer_scale2.lambda1")));
    }
    let pixels: Vec<f32> = (0..3 * 518 * 518).map(|i| ((i * 37 % 1009) as f32 / 504.5 - 1.0) * 2.0).collect();
    let theirs = dinov2::vit_small(VarBuilder::from_tensors(theirs, DType::F32, &Candle::Cpu)).expect("it is whole");
    let x = Tensor::from_slice(&pixels, (1, 3, 518, 518), &Candle::Cpu).expect("pixels");
    let theirs = theirs.get_intermediate_layers(&x, &[11], false, false, false).expect("it runs");
    let theirs: Vec<f32> = theirs.flatten_all().expect("flat").to_vec1().expect("f32");

    let model = block_on(Model::load(&source, &Device::cpu(), &Run::default())).expect("it loads");
    let vision = model.plan_vision(true, HashMap::new()).expect("it is recorded");
    model.device().write_f32(&vision.pixels, 0, &pixels).expect("written");
    block_on(vision.compiled.run(&Run::default())).expect("it runs");
    let tap = vision.compiled.plan().taps().iter().find(|t| t.name == "vis.h12").expect("the last state");
    let ours = block_on(model.device().read_f32(&[&tap.tensor])).expect("read").remove(0);
    let off = difference(&ours[384..], &theirs);
    assert!(off < TANH_GELU, "our encoder is {off} of the greatest number away");
}

#[test]
fn llama_as_candle_transformers_has_it() {
    let source = Checkpoint::smollm2(golden("smollm2"), None).expect("the bases are there (npm run bases)");
    let config = llama::Config {
        hidden_size: 576,
        intermediate_size: 1536,
        vocab_size: 49152,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        use_flash_attn: false,
        rms_norm_eps: 9.999_999_747_378_752e-6,
        rope_theta: 100_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: true,
    };
    let mut theirs = HashMap::new();
    let mut put = |name: &str| {
        let (shape, values) = read(&source, &format!("llm.{name}"));
        // rotation pairs are neighbours here, halves there
        let values = if name.contains("q_proj") || name.contains("k_proj") {
            let head = |row: usize| row / 64 * 64 + row % 32 * 2 + row % 64 / 32;
            (0..shape[0]).flat_map(|row| &values[head(row) * 576..][..576]).copied().collect()
        } else {
            values
        };
        theirs.insert(name.to_owned(), tensor((shape, values)));
    };
    put("model.embed_tokens.weight");
    put("model.norm.weight");
    for i in 0..30 {
        for name in [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
            "input_layernorm",
            "post_attention_layernorm",
        ] {
            put(&format!("model.layers.{i}.{name}.weight"));
        }
    }
    let theirs = VarBuilder::from_tensors(theirs, DType::F32, &Candle::Cpu);
    let theirs = llama::Llama::load(theirs, &config).expect("it is whole");
    let mut cache = llama::Cache::new(true, DType::F32, &config, &Candle::Cpu).expect("a cache");
    let ids: Vec<u32> = (0..40).map(|i| 1000 + i * 517 % 40000).collect();
    let x = Tensor::new(ids.as_slice(), &Candle::Cpu).and_then(|t| t.unsqueeze(0)).expect("ids");
    let theirs = theirs.forward(&x, 0, &mut cache).expect("it runs");
    let theirs: Vec<f32> = theirs.flatten_all().expect("flat").to_vec1().expect("f32");

    let model = block_on(Model::load(&source, &Device::cpu(), &Run::default())).expect("it loads");
    let mut text = Text::new(&model).expect("a language model");
    let rows: Vec<Row> = ids.into_iter().map(Row::Token).collect();
    block_on(text.read(&rows, 1, Sources::default(), Ending::Logits, &Run::default())).expect("it reads");
    let off = difference(&block_on(text.logits()).expect("logits"), &theirs);
    assert!(off < ROUNDING, "our logits are {off} of the greatest number away");
}
