//! groma-s on its real bases, and tokenizers made of other forms. The bases come by `npm run bases`.

use std::fs;
use std::path::{Path, PathBuf};

use groma::Code;
use groma::pack::{Checkpoint, Pack, Source};
use groma::tensor::DType;
use groma::tensor::plan::Run;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::pack_common::{Model, Raw, golden, numbers, run};

fn groma_s() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/groma-s")
}

fn tokenizer(source: &dyn Source) -> Tokenizer {
    Tokenizer::from_bytes(source.tokenizer().unwrap().expect("it has text")).unwrap()
}

/// Every case of a golden `tokenizer_cases.json`.
fn check_cases(tokenizer: &Tokenizer, folder: &str, applies: impl Fn(&str) -> bool) {
    let cases: Value = serde_json::from_slice(&fs::read(golden(folder).join("tokenizer_cases.json")).unwrap()).unwrap();
    let list = cases["encode"].as_array().or(cases.as_array()).expect("cases");
    assert!(list.len() >= 38, "{}", list.len());
    for case in list {
        let text = case["text"].as_str().unwrap();
        if !applies(text) {
            continue;
        }
        let ids: Vec<u64> = tokenizer.encode(text, false).unwrap().get_ids().iter().map(|i| u64::from(*i)).collect();
        assert_eq!(json!(ids), case["ids"], "{text:?}");
    }
}

#[test]
fn groma_s_keeps_the_wheels_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = run(&groma_s(), &dir.path().join("out"), &Default::default()).unwrap();
    assert_eq!(manifest.name, "groma-s");
    assert!(manifest.total < 160_000_000, "{}", manifest.total);
    let (pack, source) = (Pack::open(dir.path().join("out")).unwrap(), Checkpoint::open_with(groma_s(), None).unwrap());
    pack.verify(&Run::default()).unwrap();
    for (name, dtype) in [
        ("llm.model.layers.7.mlp.down_proj.weight", DType::Q4_1),
        ("llm.model.embed_tokens.weight", DType::Q8_0),
        ("llm.model.layers.7.post_attention_layernorm.weight", DType::F32),
        ("new_input_embs.weight", DType::F16),
        ("img_txt_bridge.0.weight", DType::F16),
    ] {
        assert_eq!(pack.info(name), source.info(name), "{name}");
        assert_eq!(pack.info(name).unwrap().dtype, dtype, "{name}");
        assert_eq!(pack.read(name).unwrap(), source.read(name).unwrap(), "{name} bit for bit");
    }
    let name = "llm.model.layers.7.self_attn.k_proj.weight";
    assert_eq!(source.info(name).unwrap().dtype, DType::F32, "LoRA is merged");
    assert_eq!(pack.info(name).unwrap().dtype, DType::Q8_0);
    let (a, b) = (numbers(&pack, name), numbers(&source, name));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 0.02, "{worst}");
    let tokenizer = tokenizer(&pack);
    assert_eq!(tokenizer.token_to_id("[PAD]"), Some(49152));
    assert_eq!(tokenizer.token_to_id("<r99>"), Some(49268));
    check_cases(&tokenizer, "smollm2", |text| !["<p>", "[grounding]"].iter().any(|t| text.contains(t)));
}

#[test]
fn a_base_alone_is_a_source() {
    let source = Checkpoint::dinov2s(golden("dinov2s"), None).unwrap();
    let name = "perceiver.vis_encoder.encoder.layer.3.mlp.fc1.weight";
    assert_eq!(source.info(name).unwrap().shape, [1536, 384], "not [in, out]");
    assert_eq!(source.info("perceiver.vis_encoder.embeddings.position_embeddings").unwrap().shape, [1, 1370, 384]);
    let whole = source.read(name).unwrap();
    assert_eq!(source.read_rows(name, 5..7).unwrap(), whole[5 * 384 * 4..7 * 384 * 4]);
    let source = Checkpoint::smollm2(golden("smollm2"), None).unwrap();
    check_cases(&tokenizer(&source), "smollm2", |_| true);
    assert_eq!(source.info("llm.model.layers.29.self_attn.q_proj.weight").unwrap().dtype, DType::Q4_1);
}

/// Tensors of one's own replace a base's of the same name, in both bases, in the pack as in the folder.
#[test]
fn a_tensor_of_the_folder_wins_over_the_bases() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, out) = (dir.path().join("ours"), dir.path().join("out"));
    fs::create_dir(&ours).unwrap();
    for name in ["bases.json", "config.json", "tokenizer_additions.json"] {
        fs::copy(groma_s().join(name), ours.join(name)).unwrap();
    }
    let bytes = fs::read(groma_s().join("model.safetensors")).unwrap();
    let theirs = Checkpoint::open_with(groma_s(), None).unwrap();
    let mut model = Model { config: theirs.config().clone(), tensors: Default::default(), tokenizer: None };
    let raw = |v: TensorView<'_>| Raw { dtype: v.dtype(), shape: v.shape().to_vec(), bytes: v.data().to_vec() };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    model.tensors = file.tensors().into_iter().map(|(n, v)| (n, raw(v))).collect();
    let names = ["perceiver.vis_encoder.embeddings.cls_token", "llm.model.norm.weight"];
    for name in names {
        assert!(!model.tensors.contains_key(name), "{name} is the base's");
        let shape = theirs.info(name).unwrap().shape;
        let bytes = (0..shape.iter().product::<usize>()).flat_map(|i| (i as f32 + 0.5).to_le_bytes()).collect();
        model.tensors.insert(name.into(), Raw { dtype: Dtype::F32, shape, bytes });
    }
    model.write(&ours);
    run(&ours, &out, &Default::default()).unwrap();
    let (folder, pack) = (Checkpoint::open_with(&ours, None).unwrap(), Pack::open(&out).unwrap());
    for name in names {
        for source in [&folder as &dyn Source, &pack] {
            let got = numbers(source, name);
            let want: Vec<f32> = (0..got.len()).map(|i| i as f32 + 0.5).collect();
            assert_eq!(got, want, "{name}");
        }
    }
    let other = "llm.model.layers.0.input_layernorm.weight";
    assert_eq!(numbers(&pack, other), numbers(&theirs, other), "the rest stays the base's");
}

#[test]
fn absent_and_foreign_bases() {
    let dir = tempfile::tempdir().unwrap();
    let error = Checkpoint::open_with(groma_s(), Some(dir.path())).unwrap_err();
    assert_eq!(error.code, Code::NoModel);
    assert!(error.to_string().contains("npm run bases"), "{error}");
    fs::write(dir.path().join("vit_s_focus.onnx"), "not it").unwrap();
    let error = Checkpoint::open_with(groma_s(), Some(dir.path())).unwrap_err();
    assert_eq!(error.code, Code::PartCorrupt);
    assert!(error.to_string().contains("198644e3"), "{error}");
}

/// A SentencePiece model with the pieces of a golden tokenizer, scores as its trainer gives them.
fn sentencepiece(json: &Value) -> Vec<u8> {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut pieces: Vec<&String> = vec![&NONE; vocab.len()];
    vocab.iter().for_each(|(t, i)| pieces[i.as_u64().unwrap() as usize] = t);
    let merges: Vec<String> =
        json["model"]["merges"].as_array().unwrap().iter().map(|m| m.as_str().unwrap().replacen(' ', "", 1)).collect();
    let mut out = Vec::new();
    for piece in pieces {
        let kind: u8 = match piece.as_str() {
            "<unk>" => 2,
            "<s>" | "</s>" => 3,
            p if p.starts_with("<0x") => 6,
            _ => 1,
        };
        // Single characters come after all merges, as in Llama's model.
        let score =
            if kind == 1 { -(merges.iter().position(|m| m == piece).unwrap_or(merges.len()) as f32) } else { 0.0 };
        let mut body = vec![0x0a, piece.len() as u8];
        body.extend(piece.as_bytes());
        body.push(0x15);
        body.extend(score.to_le_bytes());
        body.extend([0x18, kind]);
        out.extend([0x0a, body.len() as u8]);
        out.extend(body);
    }
    out.extend([0x12, 2, 0x18, 2]); // trainer_spec { model_type: BPE }
    out
}

static NONE: String = String::new();

#[test]
fn sentencepiece_becomes_the_golden_form() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny2");
    let json: Value = serde_json::from_slice(&model.tokenizer.take().unwrap()).unwrap();
    model.write(dir.path());
    fs::write(dir.path().join("tokenizer.model"), sentencepiece(&json)).unwrap();
    let made: Value =
        serde_json::from_slice(&Checkpoint::open(dir.path()).unwrap().tokenizer().unwrap().unwrap()).unwrap();
    for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_eq!(made[part], json[part], "{part}");
    }
    check_cases(&tokenizer(&Checkpoint::open(dir.path()).unwrap()), "tiny2", |_| true);

    let added: serde_json::Map<String, Value> = json["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["content"].as_str().unwrap().into(), t["id"].clone()))
        .collect();
    fs::write(dir.path().join("added_tokens.json"), Value::Object(added).to_string()).unwrap();
    check_cases(&tokenizer(&Checkpoint::open(dir.path()).unwrap()), "tiny2", |_| true);
    fs::write(dir.path().join("added_tokens.json"), r#"{"[PAD]": 430}"#).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("num_new_token 114, got 1"), "{error}");
}
