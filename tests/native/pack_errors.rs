//! Every input can be wrong: the error names file, tensor, expected and got, and nothing half-written stays.

use std::cell::RefCell;
use std::fs;

use groma::Code;
use groma::pack::convert::{Options, convert};
use groma::pack::{Checkpoint, Pack, Source};
use groma::tensor::plan::Run;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::pack_common::{Model, failure, failure_of, golden, options, run};

/// Code and all the words that the message must have.
fn check(error: &groma::Error, code: Code, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.code, code, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

#[test]
fn missing_and_misshapen_tensors() {
    let name = "llm.model.layers.1.mlp.up_proj.weight";
    let mut model = Model::golden("tiny");
    model.tensors.remove(name);
    check(&failure(&model), Code::PackInvalid, &[name, "missing", "[112, 64]"]);

    let mut model = Model::golden("tiny");
    model.tensors.get_mut(name).unwrap().shape = vec![64, 112];
    check(&failure(&model), Code::PackInvalid, &[name, "shape", "[112, 64]", "[64, 112]"]);

    let mut model = Model::golden("tiny2");
    model.tensors.remove("perceiver.ddetr_transformer.bbox_embed.1.layers.0.weight");
    check(&failure(&model), Code::PackInvalid, &["bbox_embed.1.layers.0.weight", "missing"]);

    // A component that is not there at all is missing as well.
    for (begin, component) in [("perceiver.ddetr_transformer.", "proposer"), ("region_encoder.", "region encoder")] {
        let mut model = Model::golden("tiny");
        model.tensors.retain(|name, _| !name.starts_with(begin));
        check(&failure(&model), Code::PackInvalid, &[begin, component, "missing"]);
    }

    let mut model = Model::golden("tiny");
    model.config["llm_cfg"]["num_attention_heads"] = json!(3);
    check(&failure(&model), Code::PackInvalid, &["_proj.weight", "heads"]);

    let mut model = Model::golden("tiny");
    model.config["perceiver_cfg"]["vis_encoder_cfg"]["hidden_size"] = json!("wide");
    check(&failure(&model), Code::PackInvalid, &["config.json", "hidden_size", "wide"]);

    let mut model = Model::golden("tiny");
    model.config["perceiver_cfg"]["vis_encoder_cfg"]["mlp_ratio"] = json!(-4);
    check(&failure(&model), Code::PackInvalid, &["config.json", "mlp_ratio", "-4"]);
}

#[test]
fn a_ratio_may_be_written_as_a_float() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny");
    let ratio = &mut model.config["perceiver_cfg"]["vis_encoder_cfg"]["mlp_ratio"];
    *ratio = json!(ratio.as_f64().unwrap_or(4.0));
    assert!(ratio.is_f64(), "not {ratio}");
    model.write(&dir.path().join("in"));
    run(&dir.path().join("in"), &dir.path().join("out"), &options("keep")).unwrap();
}

#[test]
fn lora_pairs_must_fit() {
    let stem = "llm.model.layers.0.self_attn.q_proj";
    let mut model = Model::golden("tiny3");
    model.tensors.remove(&format!("{stem}.lora_B.weight"));
    check(&failure(&model), Code::PackInvalid, &[stem, "lacks one half"]);

    let mut model = Model::golden("tiny3");
    let b = model.tensors.get_mut(&format!("{stem}.lora_B.weight")).unwrap();
    b.shape.reverse();
    check(&failure(&model), Code::PackInvalid, &[stem, "does not fit"]);

    let mut model = Model::golden("tiny3");
    let a = model.tensors.remove(&format!("{stem}.lora_A.weight")).unwrap();
    model.tensors.insert(format!("{stem}.lora_embedding_A"), a);
    check(&failure(&model), Code::PackInvalid, &[stem, "not known", "lora_embedding_A"]);
}

#[test]
fn unknown_types() {
    let mut model = Model::golden("tiny");
    let t = model.tensors.get_mut("img_txt_bridge.0.bias").unwrap();
    (t.dtype, t.bytes) = (Dtype::F64, vec![0; t.bytes.len() * 4]);
    check(&failure(&model), Code::PackInvalid, &["model.safetensors", "img_txt_bridge.0.bias", "dtype", "F64"]);
}

#[test]
fn truncated_and_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    Model::golden("tiny").write(&dir.path().join("in"));
    let path = dir.path().join("in/model.safetensors");
    let whole = fs::read(&path).unwrap();
    for (bytes, words) in [
        (&whole[..whole.len() - 100], &["cut short"][..]),
        (&whole[..5000], &["does not fit"]),
        (&whole[..3], &["not a safetensors file"]),
        (b"PK\x03\x04 something else entirely", &["not a safetensors file"]),
        (b"\x04\0\0\0\0\0\0\0oh no", &["not JSON"]),
        (b"\x02\0\0\0\0\0\0\0\xff\xfe", &["UTF-8"]),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", &["got 18446744073709551615"]),
    ] {
        fs::write(&path, bytes).unwrap();
        check(&failure_of(dir.path()), Code::PackInvalid, &[words, &["model.safetensors"]].concat());
    }
    let header = json!({"x": {"dtype": "F32", "shape": [u64::MAX, 8], "data_offsets": [0, 4]}}).to_string();
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()).unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["overflows"]);
    fs::remove_file(&path).unwrap();
    check(&failure_of(dir.path()), Code::NoModel, &["no weights"]);
    fs::write(dir.path().join("in/pytorch_model.bin"), b"\x80\x02}q\x00.").unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["pytorch_model.bin", "PyTorch"]);
    fs::write(dir.path().join("in/config.json"), "[1]").unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["config.json"]);
    fs::remove_dir_all(dir.path().join("in")).unwrap();
    check(&failure_of(dir.path()), Code::NoModel, &["no such folder"]);
}

#[test]
fn shards_stay_in_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    Model::golden("tiny").write(&dir.path().join("in"));
    for (shard, code, word) in
        [("../secret", Code::PackInvalid, "plain file name"), ("absent.safetensors", Code::PartMissing, "absent")]
    {
        fs::write(dir.path().join("in/model.safetensors.index.json"), json!({"weight_map": {"a": shard}}).to_string())
            .unwrap();
        check(&failure_of(dir.path()), code, &[word]);
    }
}

#[test]
fn checking_a_pack_tells_how_far_it_is_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = run(&golden("tiny"), dir.path(), &options("keep")).unwrap();
    let pack = Pack::open(dir.path()).unwrap();
    let told = RefCell::new(Vec::new());
    let progress = |done, all| told.borrow_mut().push((done, all));
    let mut run = Run::default();
    run.progress = Some(&progress);
    pack.verify(&run).unwrap();
    let all = manifest.total as usize / 1024;
    assert_eq!(told.borrow().last(), Some(&(all, all)));
    assert!(told.borrow().windows(2).all(|w| w[0].0 < w[1].0), "{told:?}");
    told.borrow_mut().clear();
    run.cancel.cancel();
    check(&pack.verify(&run).unwrap_err(), Code::Aborted, &[]);
    assert!(told.borrow().is_empty(), "nothing was read any more: {told:?}");
}

#[test]
fn broken_packs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    run(&golden("tiny"), &out, &options("q8_0")).unwrap();
    let part = out.join("decoder.gguf.000");
    let whole = fs::read(&part).unwrap();

    fs::write(&part, &whole[1..]).unwrap();
    check(&Pack::open(&out).unwrap_err(), Code::PartCorrupt, &["decoder.gguf.000", "size", &whole.len().to_string()]);
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&part, &bytes).unwrap();
    let verified = Pack::open(&out).unwrap().verify(&Run::default());
    check(&verified.unwrap_err(), Code::PartCorrupt, &["decoder.gguf.000", "SHA-256"]);
    for (at, value, words) in [
        (0, b'X', &["not a GGUF file"][..]),
        (4, 9, &["version", "got 9"]),
        (8 + 6, 1, &["decoder.gguf", "head"]),
        (16 + 6, 1, &["decoder.gguf", "head"]),
        (24 + 6, 1, &["decoder.gguf", "head"]),
    ] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        fs::write(&part, &bytes).unwrap();
        check(&Pack::open(&out).unwrap_err(), Code::PackInvalid, words);
    }
    fs::remove_file(&part).unwrap();
    check(&Pack::open(&out).unwrap_err(), Code::PartMissing, &["decoder.gguf.000"]);
    fs::write(out.join("model.json"), "{").unwrap();
    check(&Pack::open(&out).unwrap_err(), Code::PackInvalid, &["model.json", "JSON"]);
    check(&Pack::open(dir.path()).unwrap_err(), Code::NoModel, &["model.json"]);
}

/// No byte of a head may make reading panic, or claim memory that is not there.
#[test]
fn any_byte_of_a_head_may_be_wrong() {
    let dir = tempfile::tempdir().unwrap();
    run(&golden("tiny3"), &dir.path().join("out"), &options("q8_0")).unwrap();
    let mut whole = fs::read(dir.path().join("out/perceiver.gguf.000")).unwrap();
    let size = whole.len() as u64;
    whole.truncate(groma::pack::GgufHead::parse(&whole, size).unwrap().tensors[0].range.start as usize);
    // All of the fixed part and the first keys, and a sample of the rest.
    for at in (0..600).chain((600..whole.len() - 40).step_by(41)) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = groma::pack::GgufHead::parse(&bytes, size);
        }
        if at.is_multiple_of(7) {
            assert!(groma::pack::GgufHead::parse(&whole[..at], size).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn foreign_folders_are_never_replaced_and_packs_are() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "years of work").unwrap();
    check(&run(&golden("tiny"), &out, &options("keep")).unwrap_err(), Code::Usage, &["taken"]);
    assert_eq!(fs::read_to_string(out.join("thesis.txt")).unwrap(), "years of work");
    fs::remove_file(out.join("thesis.txt")).unwrap();
    run(&golden("tiny"), &out, &options("keep")).unwrap();
    run(&golden("tiny3"), &out, &options("keep")).unwrap();
    let pack = Pack::open(&out).unwrap();
    assert_eq!(pack.config()["lora_alpha"], 8);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else stays");

    // what lies beside the pack is nobody's to touch, whatever it is called
    fs::create_dir(dir.path().join("out.old")).unwrap();
    fs::write(dir.path().join("out.old/thesis.txt"), "years of work").unwrap();
    run(&golden("tiny"), &out, &options("keep")).unwrap();
    assert!(Pack::open(&out).unwrap().config()["lora_alpha"].is_null(), "it was replaced");
    assert_eq!(fs::read_to_string(dir.path().join("out.old/thesis.txt")).unwrap(), "years of work");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else stays");

    // and nor is what somebody put into a pack
    fs::write(out.join("thesis.txt"), "years of work").unwrap();
    check(&run(&golden("tiny3"), &out, &options("keep")).unwrap_err(), Code::Usage, &["taken", "thesis.txt"]);
    assert_eq!(fs::read_to_string(out.join("thesis.txt")).unwrap(), "years of work");
    assert!(Pack::open(&out).unwrap().config()["lora_alpha"].is_null(), "the pack is as it was");
}

#[test]
fn stopping_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let error = convert(&golden("tiny"), &dir.path().join("out"), &options, &|p| {
        if p.done > p.total / 2 {
            options.cancel.cancel();
        }
    });
    check(&error.unwrap_err(), Code::Aborted, &[]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn wrong_words() {
    let mut options = Options::default();
    check(&options.quant("q5_0").unwrap_err(), Code::Usage, &["--quant", "q4_0", "q5_0"]);
    check(&options.quant("brain=q8_0").unwrap_err(), Code::Usage, &["region_encoder", "brain"]);
    let source = Checkpoint::open(golden("tiny")).unwrap();
    check(&source.read("nothing").unwrap_err(), Code::PackInvalid, &["nothing"]);
    assert!(source.info("nothing").is_none());
}
