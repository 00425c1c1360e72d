//! Round trips: what a checkpoint says is what its pack says.

use std::fs;

use groma::groma::config::Config;
use groma::pack::{Checkpoint, Pack, Source};
use groma::tensor::plan::Run;
use groma::tensor::{DType, Device};
use serde_json::json;

use super::pack_common::{Model, golden, names, numbers, options, run};

const UNUSED: [&str; 1] = ["perceiver.vis_encoder.embeddings.mask_token"];

#[test]
fn floats_survive_exactly() {
    for folder in ["tiny", "tiny2", "tiny3", "tiny4", "tiny5", "small"] {
        let source = Checkpoint::open(golden(folder)).unwrap();
        for quant in ["keep", "f32"] {
            let dir = tempfile::tempdir().unwrap();
            run(&golden(folder), &dir.path().join("out"), &options(quant)).unwrap();
            let pack = Pack::open(dir.path().join("out")).unwrap();
            pack.verify(&Run::default()).unwrap();
            assert_eq!(pack.config(), source.config());
            assert_eq!(pack.tokenizer().unwrap(), source.tokenizer().unwrap());
            for name in names(&source).iter().filter(|n| !UNUSED.contains(&n.as_str())) {
                assert_eq!(pack.info(name).map(|i| i.shape), source.info(name).map(|i| i.shape), "{folder} {name}");
                assert_eq!(numbers(&pack, name), numbers(&source, name), "{folder} {quant} {name}");
            }
        }
    }
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|n| run(&golden("tiny2"), &dir.path().join(n), &options("q8_0")).unwrap());
    assert_eq!(a.files, b.files, "hashes are part of it");
}

#[test]
fn rows_that_are_no_blocks_stay_f16() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = run(&golden("tiny2"), &dir.path().join("out"), &options("q4_0")).unwrap();
    let pack = Pack::open(dir.path().join("out/model.json")).unwrap();
    let dtype = |name: &str| pack.info(name).unwrap().dtype;
    assert_eq!(dtype("llm.model.layers.0.mlp.gate_proj.weight"), DType::Q4_0);
    assert_eq!(dtype("llm.model.layers.0.input_layernorm.weight"), DType::F32);
    assert_eq!(dtype("perceiver.vis_encoder.encoder.layer.0.mlp.fc1.weight"), DType::F16, "40 columns");
    assert_eq!(dtype("perceiver.input_proj.1.3.weight"), DType::Q4_0, "32 * 3 * 3 columns");
    assert_eq!(pack.info("perceiver.input_proj.1.3.weight").unwrap().shape, [32, 32, 3, 3]);
    assert_eq!(
        pack.info("perceiver.input_proj.0.0.weight").unwrap().shape,
        [40, 16, 2, 2],
        "transposed: [in, out, kh, kw]"
    );
    assert_eq!(manifest.quantisation["mlp"], "q4_0");
    assert!(manifest.parts().all(|p| p.size <= 24 << 20));
}

#[test]
fn components_are_quantised_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options("keep");
    options.quant("mlp=q8_0").unwrap();
    options.quant("head=q4_1").unwrap();
    run(&golden("tiny2"), &dir.path().join("out"), &options).unwrap();
    let pack = Pack::open(dir.path().join("out")).unwrap();
    let dtype = |name: &str| pack.info(name).unwrap().dtype;
    assert_eq!(dtype("llm.model.layers.1.mlp.down_proj.weight"), DType::Q8_0);
    assert_eq!(dtype("llm.model.layers.1.self_attn.o_proj.weight"), DType::F16);
    assert_eq!(dtype("llm.lm_head.weight"), DType::Q4_1);
    assert_eq!(dtype("extra_lm_head.weight"), DType::Q4_1);
    assert_eq!(dtype("new_input_embs.weight"), DType::F16);
}

#[test]
fn blocks_and_large_tables_come_back_from_a_pack_of_small_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny");
    let table = model.tensors.get_mut("llm.model.embed_tokens.weight").unwrap();
    let rows = 260_000; // 260000 * 64 * 2 bytes: two parts.
    table.bytes = (0..rows * 64u32).flat_map(|i| half::f16::from_f32((i % 251) as f32 - 125.0).to_le_bytes()).collect();
    table.shape = vec![rows as usize, 64];
    model.config["llm_cfg"]["vocab_size"] = json!(rows);
    model.write(&dir.path().join("in"));
    let manifest = run(&dir.path().join("in"), &dir.path().join("out"), &options("keep")).unwrap();
    assert!(manifest.file("decoder.gguf").unwrap().parts.len() > 1, "the table is cut");
    let (source, pack) =
        (Checkpoint::open(dir.path().join("in")).unwrap(), Pack::open(dir.path().join("out")).unwrap());
    for name in ["llm.model.embed_tokens.weight", "llm.model.norm.weight", "extra_lm_head.weight"] {
        assert_eq!(numbers(&pack, name), numbers(&source, name), "{name}");
    }
}

#[test]
fn tied_heads_and_shared_heads() {
    let source = Checkpoint::open(golden("tiny")).unwrap();
    assert!(source.info("llm.lm_head.weight").is_none(), "tied");
    let head = |i: usize| format!("perceiver.ddetr_transformer.bbox_embed.{i}.layers.1.weight");
    assert_eq!(numbers(&source, &head(1)), numbers(&source, &head(0)), "one head for all layers");
    let source = Checkpoint::open(golden("tiny3")).unwrap();
    assert!(source.info("llm.lm_head.weight").is_some());
    assert_ne!(numbers(&source, &head(1)), numbers(&source, &head(0)), "stored as decoder.bbox_embed");
}

#[test]
fn query_rows_are_neighbours_after_lora() {
    let model = Model::golden("tiny3");
    let source = Checkpoint::open(golden("tiny3")).unwrap();
    let stem = "llm.model.layers.0.self_attn.q_proj";
    let [w, a, b] = ["", ".lora_A", ".lora_B"].map(|p| model.floats(&format!("{stem}{p}.weight")));
    let rank = model.tensors[&format!("{stem}.lora_A.weight")].shape[0];
    let alpha = model.config["lora_alpha"].as_f64().unwrap();
    let got = numbers(&source, &format!("{stem}.weight"));
    let width = 16; // head_dim
    for row in 0..got.len() / 64 {
        let official = row / width * width + row % 2 * width / 2 + row % width / 2;
        for col in 0..64 {
            let sum: f64 = (0..rank).map(|k| f64::from(b[official * rank + k]) * f64::from(a[k * 64 + col])).sum();
            let want = f64::from(w[official * 64 + col]) + alpha / rank as f64 * sum;
            assert!((want - f64::from(got[row * 64 + col])).abs() < 1e-6, "{row} {col}");
        }
    }
}

#[test]
fn the_description_says_what_ends_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    run(&golden("tiny"), &out, &options("keep")).unwrap();
    let path = out.join("model.json");
    let mut description: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(description["generation"]["eos_token_ids"], json!(Pack::open(&out).unwrap().stops().unwrap()));
    description["generation"]["eos_token_ids"] = json!([5, 7]);
    fs::write(&path, description.to_string()).unwrap();
    let pack = Pack::open(&out).unwrap();
    let model = pollster::block_on(groma::session::Model::load(&pack, &Device::cpu(), &Run::default())).unwrap();
    assert_eq!(model.config().llm.eos_token_id.to_vec(), [5, 7]);
}

/// Some checkpoints write `null` for what they could have left out.
#[test]
fn an_end_that_is_null_is_the_default_in_pack_and_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny");
    model.config["llm_cfg"]["eos_token_id"] = json!(null);
    model.write(&dir.path().join("in"));
    run(&dir.path().join("in"), &dir.path().join("out"), &options("keep")).unwrap();
    let pack = Pack::open(dir.path().join("out")).unwrap();
    assert_eq!(pack.stops().unwrap(), [2]);
    let model = pollster::block_on(groma::session::Model::load(&pack, &Device::cpu(), &Run::default())).unwrap();
    assert_eq!(model.config().llm.eos_token_id.to_vec(), [2]);
    assert_eq!(Config::from_json(pack.config()).unwrap().llm.eos_token_id.to_vec(), [2]);
}

#[test]
fn lora_pairs_may_name_their_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny3");
    let named =
        |n: String| n.replace(".lora_A.weight", ".lora_A.default.weight").replace(".lora_B.w", ".lora_B.default.w");
    let before = model.tensors.keys().cloned().collect::<Vec<_>>();
    model.tensors = model.tensors.into_iter().map(|(n, t)| (named(n), t)).collect();
    assert!(model.tensors.keys().any(|n| !before.contains(n)));
    model.write(dir.path());
    let (theirs, ours) = (Checkpoint::open(dir.path()).unwrap(), Checkpoint::open(golden("tiny3")).unwrap());
    let name = "llm.model.layers.0.self_attn.q_proj.weight";
    assert_eq!(numbers(&theirs, name), numbers(&ours, name));
}

#[test]
fn first_stage_checkpoints_lack_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("small");
    model.tensors = model
        .tensors
        .into_iter()
        .filter_map(|(n, t)| n.strip_prefix("perceiver.").map(|n| (n.to_owned(), t)))
        .collect();
    model.write(&dir.path().join("in"));
    run(&dir.path().join("in"), &dir.path().join("out"), &options("keep")).unwrap();
    let (pack, source) = (Pack::open(dir.path().join("out")).unwrap(), Checkpoint::open(golden("small")).unwrap());
    let name = "perceiver.input_proj.3.0.weight";
    assert_eq!(numbers(&pack, name), numbers(&source, name));
    assert!(pack.index().manifest().file("decoder.gguf").is_none(), "there is no language model");
}

#[test]
fn shards_and_pytorch_files() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/pack_pytorch");
    let source = Checkpoint::open(dir).unwrap();
    assert_eq!(names(&source).len(), 4, "no frequencies, no counters");
    assert_eq!(source.info("img_txt_bridge.0.bias").unwrap().dtype, DType::F16);
    assert_eq!(source.info("img_txt_bridge.2.weight").unwrap().dtype, DType::F32, "bf16 is widened");
    assert_eq!(numbers(&source, "img_txt_bridge.0.bias"), [1.5, -2.0]);
    assert_eq!(numbers(&source, "img_txt_bridge.2.weight"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(numbers(&source, "img_txt_bridge.2.bias"), [0.25, 0.5], "a parameter");
    let want: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).collect();
    assert_eq!(numbers(&source, "img_txt_bridge.0.weight"), want);
    assert_eq!(
        source.read_rows("img_txt_bridge.0.weight", 1..2).unwrap(),
        want[32..].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()
    );

    let (a, b) = (tempfile::tempdir().unwrap(), Model::golden("tiny"));
    let half = b.tensors.len() / 2;
    let mut map = serde_json::Map::new();
    for (i, name) in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].into_iter().enumerate() {
        let tensors = b
            .tensors
            .iter()
            .enumerate()
            .filter(|(k, _)| (*k < half) == (i == 0))
            .map(|(_, (n, t))| (n.clone(), t.clone()))
            .collect();
        let shard = Model { config: b.config.clone(), tensors, tokenizer: None };
        shard.write(a.path());
        fs::rename(a.path().join("model.safetensors"), a.path().join(name)).unwrap();
        map.extend(shard.tensors.keys().map(|n| (n.clone(), json!(name))));
    }
    fs::write(a.path().join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    let (shards, whole) = (Checkpoint::open(a.path()).unwrap(), Checkpoint::open(golden("tiny")).unwrap());
    assert_eq!(names(&shards), names(&whole));
    let name = "img_txt_bridge.0.weight";
    assert_eq!(numbers(&shards, name), numbers(&whole, name));
}
