//! Hostile packs: sizes that overflow, offsets outside, claims of gigabytes, bad text, absurd configurations.

use std::fs;
use std::path::Path;

use groma::groma::config::Config;
use groma::groma::tokens::Tokens;
use groma::pack::{GgufHead, Manifest, Pack};
use groma::{Code, Error};
use serde_json::{Value, json};

use super::memory::cheap;

/// A GGUF file put together by hand.
#[derive(Clone, Default)]
struct Gguf {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    counts: Option<(u64, u64)>,
    data: usize,
}

fn text(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s].concat()
}

fn tensor(name: &[u8], axes: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend((axes.len() as u32).to_le_bytes());
    axes.iter().for_each(|a| out.extend(a.to_le_bytes()));
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

fn key(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name)[..], &kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, len: u64, body: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &len.to_le_bytes(), body].concat()
}

impl Gguf {
    fn bytes(&self) -> Vec<u8> {
        let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.keys.len() as u64));
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }

    fn key(mut self, name: &[u8], kind: u32, value: &[u8]) -> Self {
        self.keys.push(key(name, kind, value));
        self
    }

    fn tensor(mut self, name: &[u8], axes: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push(tensor(name, axes, kind, offset));
        self
    }
}

fn gguf() -> Gguf {
    Gguf { data: 256, ..Gguf::default() }
}

#[track_caller]
fn refused(error: &Error, code: Code, word: &str) {
    let said = error.to_string();
    assert!(error.code == code && said.contains(word), "{}: {said}, without {word:?}", error.code.as_str());
    assert!(said.len() < 1000, "{} characters: {said}", said.len());
}

#[test]
fn heads() {
    let plain = gguf().tensor(b"a", &[8, 4], 0, 0);
    assert_eq!(GgufHead::parse(&plain.bytes(), plain.bytes().len() as u64).unwrap().tensors[0].info.shape, [4, 8]);
    let counts = |tensors: u64, keys: u64| Gguf { counts: Some((tensors, keys)), ..gguf() };
    let u32s = |n: &[u32]| array(4, n.len() as u64, &n.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let deep = (0..10).fold(array(0, 1, &[0]), |body, _| array(9, 1, &body));
    for (what, file, word) in [
        ("2^63 tensors", counts(1 << 63, 0), "too many tensors"),
        ("10^9 tensors", counts(1_000_000_000, 0), "too many tensors"),
        ("10^9 keys", counts(0, 1_000_000_000), "too many keys"),
        ("60000 tensors in 256 bytes", counts(60_000, 0), "head"),
        ("a name of 4 GB", Gguf { tensors: vec![(4u64 << 30).to_le_bytes().to_vec()], ..gguf() }, "cut short"),
        ("a name of 2^64 - 1", Gguf { tensors: vec![u64::MAX.to_le_bytes().to_vec()], ..gguf() }, "cut short"),
        ("a text of 4 GB", gguf().key(b"k", 8, &(4u64 << 30).to_le_bytes()), "cut short"),
        ("an array of 2^63 bytes", gguf().key(b"k", 9, &array(0, 1 << 63, b"")), "cut short"),
        ("an array of 2^62 numbers", gguf().key(b"k", 9, &array(4, 1 << 62, b"")), "overflows"),
        ("an array of 10^9 texts", gguf().key(b"k", 9, &array(8, 1_000_000_000, b"")), "claims more"),
        ("arrays of arrays", gguf().key(b"k", 9, &deep), "too deep"),
        ("a kind of value", gguf().key(b"k", 77, b""), "unknown kind"),
        ("a key twice", gguf().key(b"k", 0, &[1]).key(b"k", 0, &[2]), "same name"),
        ("a key that is no UTF-8", gguf().key(b"k\xff", 0, &[1]), "UTF-8"),
        ("a name that is no UTF-8", gguf().tensor(b"\xc3\x28", &[8], 0, 0), "UTF-8"),
        ("a tensor without a name", gguf().tensor(b"", &[8], 0, 0), "no name"),
        ("a tensor twice", gguf().tensor(b"a", &[8], 0, 0).tensor(b"a", &[8], 0, 32), "same name"),
        (
            "an alias",
            gguf().tensor(b"output.weight", &[8], 0, 0).tensor(b"llm.lm_head.weight", &[8], 0, 32),
            "same name",
        ),
        ("tensors that overlap", gguf().tensor(b"a", &[16], 0, 0).tensor(b"b", &[16], 0, 32), "overlap"),
        ("five axes", gguf().tensor(b"a", &[1; 5], 0, 0), "axes"),
        ("a dtype", gguf().tensor(b"a", &[8], 999, 0), "dtype"),
        ("2^63 numbers", gguf().tensor(b"a", &[1 << 63], 0, 0), "a"),
        ("2^64 numbers", gguf().tensor(b"a", &[1 << 32, 1 << 32], 0, 0), "overflows"),
        ("2^63 bytes", gguf().tensor(b"a", &[1 << 31, 1 << 30], 0, 0), "outside its file"),
        ("4 GB of blocks in a file of nothing", gguf().tensor(b"a", &[1 << 16, 1 << 16], 2, 0), "outside its file"),
        ("a tensor one byte too long", gguf().tensor(b"a", &[65], 0, 0), "outside its file"),
        ("an offset outside", gguf().tensor(b"a", &[8], 0, 512), "outside its file"),
        ("an offset that overflows", gguf().tensor(b"a", &[8], 0, u64::MAX - 3), "outside its file"),
        ("blocks across rows", gguf().tensor(b"a", &[33, 2], 2, 0), "blocks"),
        ("an alignment of zero", gguf().key(b"general.alignment", 4, &[0; 4]), "alignment"),
        (
            "an alignment of zero, disguised",
            gguf().key(b"general.alignment\0", 4, &[0; 4]).tensor(b"a", &[64], 0, 1 << 40),
            "outside",
        ),
        ("an alignment of three", gguf().key(b"general.alignment", 4, &[3, 0, 0, 0]), "alignment"),
        ("an alignment of text", gguf().key(b"general.alignment", 8, &text(b"32")), "alignment"),
        ("a shape of other numbers", gguf().key(b"groma.shape.a", 9, &u32s(&[3, 3])).tensor(b"a", &[8], 0, 0), "shape"),
        (
            "a shape that overflows",
            gguf().key(b"groma.shape.a", 9, &u32s(&[u32::MAX; 4])).tensor(b"a", &[8], 0, 0),
            "shape",
        ),
        (
            "a shape of a thousand axes",
            gguf().key(b"groma.shape.a", 9, &u32s(&[1; 1000])).tensor(b"a", &[1], 0, 0),
            "shape",
        ),
        (
            "a shape of text",
            gguf().key(b"groma.shape.a", 8, &text("\u{e9}".repeat(200).as_bytes())).tensor(b"a", &[1], 0, 0),
            "shape",
        ),
    ] {
        let bytes = file.bytes();
        let result = cheap(what, 4, || GgufHead::parse(&bytes, bytes.len() as u64));
        let error = result.expect_err(what);
        refused(&error, Code::PackInvalid, word);
    }
}

/// A head may be long; what it takes to read must stay near its own size.
#[test]
fn long_heads() {
    let zeros = vec![0; 15 << 20];
    for (what, file) in [
        ("numbers nobody wants", gguf().key(b"k", 9, &array(0, zeros.len() as u64, &zeros))),
        ("bytes of a shape", gguf().key(b"groma.shape.a", 9, &array(0, zeros.len() as u64, &zeros))),
        ("empty texts", gguf().key(b"k", 9, &array(8, zeros.len() as u64 / 8, &zeros))),
        (
            "empty texts of a tokenizer",
            gguf().key(b"tokenizer.ggml.tokens", 9, &array(8, zeros.len() as u64 / 8, &zeros)),
        ),
        ("empty arrays", gguf().key(b"k", 9, &array(9, zeros.len() as u64 / 12, &zeros))),
    ] {
        let bytes = file.bytes();
        cheap(what, 96, || GgufHead::parse(&bytes, bytes.len() as u64)).expect(what);
    }
}

fn manifest() -> Value {
    let hash = "0".repeat(64);
    let part = |i: usize, size: u64| json!({"name": format!("a.gguf.00{i}"), "size": size, "sha256": hash});
    json!({"format": "groma-pack", "version": 1, "name": "m", "licence": [], "config": {}, "quantisation": {}, "total": 12,
           "generation": {"eos_token_ids": [2], "max_new_tokens": 64},
           "files": [{"name": "a.gguf", "size": 12, "sha256": hash, "parts": [part(0, 5), part(1, 7)]}]})
}

#[test]
fn manifests() {
    let parse = |bytes: &[u8]| cheap("a manifest", 64, || Manifest::parse(bytes));
    parse(manifest().to_string().as_bytes()).unwrap();
    for (at, value, word) in [
        ("/format", json!(7), "format"),
        ("/version", json!("1"), "version"),
        ("/name", json!({}), "string"),
        ("/licence", json!("MIT"), "sequence"),
        ("/config", json!(null), "config"),
        ("/generation/eos_token_ids", json!([-1]), "integer"),
        ("/generation/max_new_tokens", json!(1e99), ""),
        ("/files", json!({}), "sequence"),
        ("/files/0/size", json!(-5), "integer"),
        ("/files/0/size", json!(u64::MAX), "not the file"),
        ("/files/0/name", json!("../../etc/passwd"), "leaves the pack"),
        ("/files/0/name", json!("a\u{0}b"), "leaves the pack"),
        ("/files/0/parts/0/name", json!("../../etc/passwd"), "leaves the pack"),
        ("/files/0/parts/0/name", json!("/etc/passwd"), "leaves the pack"),
        ("/files/0/parts/0/name", json!("C:\\secrets"), "leaves the pack"),
        ("/files/0/parts/0/name", json!(".."), "leaves the pack"),
        ("/files/0/parts/0/name", json!("a?x=1"), "leaves the pack"),
        ("/files/0/parts/0/name", json!("%2e%2e%2fsecret"), "leaves the pack"),
        ("/files/0/parts/0/name", json!("model.json"), "same name"),
        ("/files/0/parts/1/name", json!("a.gguf.000"), "same name"),
        ("/files/0/parts/0/size", json!(0), "impossible size"),
        ("/files/0/parts/0/size", json!(4u64 << 30), "impossible size"),
        ("/files/0/parts/0/size", json!(u64::MAX), "impossible size"),
        ("/files/0/parts/0/sha256", json!("../".repeat(22)), "SHA-256"),
        ("/files/0/parts", json!([]), "not the file"),
        ("/total", json!(u64::MAX), "total"),
        ("/total", json!(11), "total"),
    ] {
        let mut m = manifest();
        *m.pointer_mut(at).unwrap() = value.clone();
        let error = parse(m.to_string().as_bytes()).expect_err(&format!("{at} = {value}"));
        refused(&error, Code::PackInvalid, word);
    }
    let mut two = manifest();
    let file = two["files"][0].clone();
    two["files"] = json!([file.clone(), file]);
    refused(&parse(two.to_string().as_bytes()).unwrap_err(), Code::PackInvalid, "same name");
    for bytes in [&b""[..], b"{", b"[]", b"\xff\xfe", b"nan", "[".repeat(100_000).as_bytes()] {
        refused(&parse(bytes).unwrap_err(), Code::PackInvalid, "model.json");
    }
    refused(&parse(&vec![b' '; 5 << 20]).unwrap_err(), Code::PackInvalid, "too large");
    let parts: Vec<Value> = (0..4)
        .map(|i| json!({"name": format!("tokenizer.json.{i}"), "size": 24 << 20, "sha256": "0".repeat(64)}))
        .collect();
    let mut huge = manifest();
    huge["files"] = json!([{"name": "tokenizer.json", "size": 96 << 20, "sha256": "0".repeat(64), "parts": parts}]);
    huge["total"] = json!(96 << 20);
    refused(&parse(huge.to_string().as_bytes()).unwrap_err(), Code::PackInvalid, "tokenizer is too large");
}

/// A manifest that claims what is not there, beside files that are.
#[test]
fn folders() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.gguf.000"), "GGUF").unwrap();
    fs::write(dir.path().join("a.gguf.001"), "GGUF").unwrap();
    fs::write(dir.path().join("model.json"), manifest().to_string()).unwrap();
    let error = cheap("a pack", 4, || Pack::open(dir.path())).unwrap_err();
    refused(&error, Code::PartCorrupt, "expected 5, got 4");
    fs::remove_file(dir.path().join("a.gguf.000")).unwrap();
    fs::create_dir(dir.path().join("a.gguf.000")).unwrap();
    refused(&Pack::open(dir.path()).unwrap_err(), Code::PartMissing, "a.gguf.000");
}

fn config() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny2/config.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn configurations() {
    let read = |config: &Value| cheap("a configuration", 16, || Config::from_json(config));
    read(&config()).unwrap();
    let vis = "perceiver_cfg/vis_encoder_cfg";
    let det = "perceiver_cfg/ddetr_cfg";
    for (part, key, values) in [
        ("", "image_size", vec![json!(0), json!(-1), json!(1e12), json!(113), json!("wide"), json!(1 << 20)]),
        ("", "image_token_merge", vec![json!(0), json!(3), json!(1 << 20)]),
        ("", "max_region_num", vec![json!(0), json!(101), json!(u64::MAX)]),
        ("", "nms_thres", vec![json!("high"), json!([])]),
        (vis, "hidden_size", vec![json!(0), json!(1e18), json!(u64::MAX), json!(1 << 23), json!(17)]),
        (vis, "num_hidden_layers", vec![json!(0), json!(1), json!(1_000_000_000_000u64), json!(1 << 20)]),
        (vis, "num_attention_heads", vec![json!(0), json!(3), json!(1 << 22)]),
        (vis, "patch_size", vec![json!(0), json!(1 << 23)]),
        (vis, "image_size", vec![json!(0), json!(1 << 23)]),
        (vis, "mlp_ratio", vec![json!(-4), json!(0), json!(1e300)]),
        (det, "d_model", vec![json!(0), json!(1 << 20), json!(33)]),
        (det, "num_queries", vec![json!(0), json!(1u64 << 40)]),
        (det, "two_stage_num_proposals", vec![json!(0), json!(1 << 23)]),
        (det, "encoder_layers", vec![json!(-1), json!(1_000_000_000_000u64), json!(u64::MAX)]),
        (det, "decoder_layers", vec![json!(0), json!(1 << 22)]),
        (det, "encoder_attention_heads", vec![json!(0), json!(5), json!(1 << 22)]),
        (det, "decoder_n_points", vec![json!(0), json!(1 << 22)]),
        (det, "num_feature_levels", vec![json!(0), json!(5), json!(u64::MAX)]),
        ("llm_cfg", "hidden_size", vec![json!(0), json!(1 << 23)]),
        ("llm_cfg", "num_hidden_layers", vec![json!(0), json!(1_000_000_000_000u64), json!(1 << 22)]),
        ("llm_cfg", "num_attention_heads", vec![json!(0), json!(3), json!(1 << 22)]),
        ("llm_cfg", "num_key_value_heads", vec![json!(0), json!(3)]),
        ("llm_cfg", "head_dim", vec![json!(0), json!(7), json!(1 << 22)]),
        ("llm_cfg", "vocab_size", vec![json!(0), json!(1 << 30)]),
        ("llm_cfg", "max_position_embeddings", vec![json!(0), json!(1 << 23), json!(u64::MAX)]),
        ("llm_cfg", "rope_scaling", vec![json!({"type": "linear"})]),
        ("region_encoder_cfg", "roi_size", vec![json!(0), json!(1 << 16)]),
        ("region_encoder_cfg", "num_groups", vec![json!(0), json!(7)]),
        ("region_encoder_cfg", "num_fuse", vec![json!(1 << 22), json!(u64::MAX)]),
        (
            "region_encoder_cfg",
            "level_scales",
            vec![json!([]), json!([0, 1, 1]), json!([1u64 << 40, 1, 1]), json!([1])],
        ),
        ("region_encoder_cfg", "featmap_strides", vec![json!([0.0, 1.0, 1.0]), json!([-1.0, 1.0, 1.0]), json!([1.0])]),
    ] {
        for value in values {
            let mut c = config();
            let place = if part.is_empty() { &mut c } else { c.pointer_mut(&format!("/{part}")).unwrap() };
            place[key] = value.clone();
            let error = read(&c).err().unwrap_or_else(|| panic!("{part} {key} = {value} is taken"));
            refused(&error, Code::PackInvalid, "config.json");
        }
    }
    for config in [json!([]), json!("x"), json!({"llm_cfg": []}), json!({"perceiver_cfg": {"ddetr_cfg": 3}})] {
        assert!(read(&config).is_err(), "{config}");
    }
}

#[test]
fn tokenizers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny2/tokenizer.json");
    let whole: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let tokens = |json: &Value| cheap("a tokenizer", 64, || Tokens::from_bytes(json.to_string().as_bytes()));
    tokens(&whole).unwrap();
    let many: Vec<Value> = (0..20_000).map(|i| json!({"id": i, "content": format!("<t{i}>")})).collect();
    for (at, value) in [
        ("/added_tokens", json!(many)),
        ("/added_tokens", json!([{"id": -1, "content": "x"}])),
        ("/added_tokens", json!([{"id": u64::MAX, "content": "x"}])),
        ("/added_tokens", json!("all")),
        ("/model", json!({})),
        ("/model", json!(null)),
        ("/model/vocab", json!([1, 2])),
        ("/model/vocab", json!({"a": -1})),
        ("/model/merges", json!([["not", "there"]])),
        ("/model/merges", json!(["a b c d"])),
        ("/model/type", json!("Telepathy")),
        ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})),
        ("/decoder", json!({"type": "Strip"})),
        ("/decoder", json!({"type": "Strip", "content": "x", "start": 9, "stop": 9})),
    ] {
        let mut t = whole.clone();
        *t.pointer_mut(at).unwrap() = value;
        refused(&tokens(&t).expect_err(at), Code::PackInvalid, "tokenizer.json");
    }
    for bytes in [&b""[..], b"{}", b"[]", b"\xff", "[".repeat(1 << 20).as_bytes()] {
        refused(&Tokens::from_bytes(bytes).unwrap_err(), Code::PackInvalid, "tokenizer.json");
    }
    // Decoders that eat or change what stands before a text.
    for decoder in [
        json!({"type": "Replace", "pattern": {"String": "x"}, "content": "\u{e9}"}),
        json!({"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}),
        json!({"type": "Strip", "content": "x", "start": 9, "stop": 0}),
    ] {
        let mut t = whole.clone();
        t["decoder"] = decoder;
        let t = tokens(&t).unwrap();
        for id in 0..t.vocabulary() as u32 {
            t.piece(id).unwrap();
        }
    }
}
