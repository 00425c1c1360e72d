//! Every kind of wrong input for every kind of file: the error names the file, the tensor, what was expected and what
//! was got.

use std::fs;
use std::path::{Path, PathBuf};

use groma::Code;
use groma::pack::{Checkpoint, GgufHead, Pack, Source};
use groma::session::Model as Session;
use groma::tensor::plan::Run;
use groma::tensor::{Device, Numerics};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pack_common::{Model, failure_of, golden, names, numbers, options, run};

const TENSOR: &str = "llm.model.layers.1.mlp.up_proj.weight";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/fixtures").join(name)
}

#[track_caller]
fn check(error: &groma::Error, code: Code, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.code, code, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

/// A small base of our own: `tiny`'s language model in a GGUF file, and a folder with the rest of it.
struct Based {
    dir: tempfile::TempDir,
    gguf: Vec<u8>,
}

impl Based {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(&golden("tiny"), &dir.path().join("whole"), &options("keep")).unwrap();
        let gguf = fs::read(dir.path().join("whole/decoder.gguf.000")).unwrap();
        fs::remove_dir_all(dir.path().join("whole")).unwrap();
        let mut model = Model::golden("tiny");
        let decoder = ["llm.", "new_input_embs.", "extra_lm_head."];
        model.tensors.retain(|n, _| !decoder.iter().any(|d| n.starts_with(d)));
        model.write(&dir.path().join("in"));
        Self { dir, gguf }
    }

    /// Writes the base, and the list of bases with its hash or another.
    fn write(&self, gguf: &[u8], sha256: Option<&str>) {
        fs::write(self.dir.path().join("in/base.gguf"), gguf).unwrap();
        let hash: String = Sha256::digest(gguf).iter().map(|b| format!("{b:02x}")).collect();
        let known = GgufHead::parse(&self.gguf, self.gguf.len() as u64).unwrap();
        let names: serde_json::Map<String, Value> =
            known.tensors.iter().map(|t| (t.name.clone(), json!(t.name))).collect();
        let decoder = json!({"package": "p", "version": "1", "file": "base.gguf", "sha256": sha256.unwrap_or(&hash), "names": names});
        fs::write(self.dir.path().join("in/bases.json"), json!({"decoder": decoder}).to_string()).unwrap();
    }

    /// What converting fails with.
    fn failure(&self, gguf: &[u8], sha256: Option<&str>) -> groma::Error {
        self.write(gguf, sha256);
        let mut options = options("keep");
        options.bases = Some(self.dir.path().join("in"));
        let error = run(&self.dir.path().join("in"), &self.dir.path().join("out"), &options).expect_err("it is broken");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "something stayed");
        error
    }

    /// The base with some bytes of a tensor's description changed; `at` counts from behind its name.
    fn described(&self, tensor: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut gguf = self.gguf.clone();
        let needle = [&(tensor.len() as u64).to_le_bytes()[..], tensor.as_bytes()].concat();
        let start = gguf.windows(needle.len()).position(|w| w == needle).unwrap() + needle.len() + at;
        gguf[start..start + bytes.len()].copy_from_slice(bytes);
        gguf
    }
}

#[test]
fn gguf() {
    let based = Based::new();
    let name = "blk.1.ffn_up.weight";
    // Axes, then columns, rows, type, offset.
    let swapped = based.described(name, 4, &[112u64.to_le_bytes(), 64u64.to_le_bytes()].concat());
    check(&based.failure(&swapped, None), Code::PackInvalid, &["base.gguf", TENSOR, "[112, 64]", "[64, 112]"]);
    let foreign = based.described(name, 4 + 16, &14u32.to_le_bytes());
    check(&based.failure(&foreign, None), Code::PackInvalid, &["base.gguf", name, "dtype", "got 14"]);
    let mut renamed = based.gguf.clone();
    let at = renamed.windows(name.len()).position(|w| w == name.as_bytes()).unwrap();
    renamed[at + 4] = b'7';
    check(&based.failure(&renamed, None), Code::PackInvalid, &["base.gguf", "bases.json does not name"]);
    let cut = &based.gguf[..based.gguf.len() - 40];
    check(
        &based.failure(cut, None),
        Code::PackInvalid,
        &["base.gguf", "outside its file", &format!("a file of {}", cut.len())],
    );
    check(&based.failure(&based.gguf[..700], None), Code::PackInvalid, &["base.gguf", "head is cut short"]);
    check(
        &based.failure(b"PK\x03\x04 something else", None),
        Code::PackInvalid,
        &["base.gguf", "not a GGUF file", "PK"],
    );
    let other = "ab".repeat(32);
    check(&based.failure(&based.gguf, Some(&other)), Code::PartCorrupt, &["base.gguf", "not the pinned one", &other]);
    based.write(&based.gguf, None);
    let whole = Checkpoint::open_with(based.dir.path().join("in"), Some(&based.dir.path().join("in"))).unwrap();
    let source = Checkpoint::open(golden("tiny")).unwrap();
    assert_eq!(numbers(&whole, TENSOR), numbers(&source, TENSOR), "the base itself is right");
}

#[test]
fn safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = |change: &dyn Fn(&mut Model)| {
        let mut model = Model::golden("tiny");
        change(&mut model);
        model.write(&dir.path().join("in"));
        failure_of(dir.path())
    };
    let missing = tiny(&|m| drop(m.tensors.remove(TENSOR)));
    check(&missing, Code::PackInvalid, &["/in", TENSOR, "missing", "expected [112, 64], got none"]);
    let shape = tiny(&|m| m.tensors.get_mut(TENSOR).unwrap().shape.reverse());
    check(&shape, Code::PackInvalid, &["model.safetensors", TENSOR, "expected [112, 64], got [64, 112]"]);
    let dtype = tiny(&|m| {
        let t = m.tensors.get_mut(TENSOR).unwrap();
        (t.dtype, t.bytes) = (Dtype::F64, t.bytes.repeat(4));
    });
    check(&dtype, Code::PackInvalid, &["model.safetensors", TENSOR, "expected F32, F16 or BF16, got F64"]);
    Model::golden("tiny").write(&dir.path().join("in"));
    let path = dir.path().join("in/model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["model.safetensors", "cut short", "expected", "got"]);
    fs::write(&path, b"GIF89a and what follows").unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["model.safetensors", "not a safetensors file"]);
    // A claim of four gigabytes of header, and one of 2^60 numbers.
    fs::write(&path, [&(4u64 << 30).to_le_bytes()[..], &[b' '; 64]].concat()).unwrap();
    check(&failure_of(dir.path()), Code::PackInvalid, &["model.safetensors", "header", "got 4294967296"]);
    for shape in [vec![1u64 << 60], vec![1 << 31, 1 << 31], vec![u64::MAX; 3]] {
        let header = json!({TENSOR: {"dtype": "F16", "shape": shape, "data_offsets": [0, 8]}}).to_string();
        fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()).unwrap();
        check(&failure_of(dir.path()), Code::PackInvalid, &["model.safetensors", TENSOR]);
    }
    for offsets in [json!([8, 0]), json!([0, u64::MAX]), json!([u64::MAX, 8]), json!([0]), json!("all"), json!([0, -8])]
    {
        let header = json!({TENSOR: {"dtype": "F16", "shape": [4], "data_offsets": offsets}}).to_string();
        fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()).unwrap();
        check(&failure_of(dir.path()), Code::PackInvalid, &["model.safetensors", TENSOR]);
    }
}

/// A folder whose weights are one PyTorch file.
fn pytorch(dir: &Path, bytes: &[u8]) {
    fs::create_dir_all(dir.join("in")).unwrap();
    fs::copy(golden("tiny").join("config.json"), dir.join("in/config.json")).unwrap();
    fs::write(dir.join("in/pytorch_model.bin"), bytes).unwrap();
}

#[test]
fn pytorch_of_before_1_6_is_read() {
    let dir = tempfile::tempdir().unwrap();
    pytorch(dir.path(), &fs::read(fixture("legacy.bin")).unwrap());
    let source = Checkpoint::open(dir.path().join("in")).unwrap();
    assert_eq!(names(&source), ["bf16", "f16", "f32", "parameter", "view"], "no counters, no masks");
    let line = |from: u32, to: u32| (from..to).map(|i| i as f32).collect::<Vec<_>>();
    assert_eq!((source.info("f32").unwrap().shape, numbers(&source, "f32")), (vec![3, 4], line(0, 12)));
    assert_eq!((source.info("view").unwrap().shape, numbers(&source, "view")), (vec![2, 3], line(4, 10)));
    assert_eq!(numbers(&source, "f16"), [0.5, -2.0]);
    assert_eq!(numbers(&source, "bf16"), [1.0, -3.0]);
    assert_eq!(numbers(&source, "parameter"), [7.0, 8.0]);
    assert_eq!(
        source.read_rows("view", 1..2).unwrap(),
        line(7, 10).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()
    );
}

#[test]
fn pytorch_files() {
    let dir = tempfile::tempdir().unwrap();
    let fails = |bytes: &[u8], words: &[&str]| {
        pytorch(dir.path(), bytes);
        let words = [&["pytorch_model.bin"][..], words].concat();
        check(&failure_of(dir.path()), Code::PackInvalid, &words);
    };
    let legacy = fs::read(fixture("legacy.bin")).unwrap();
    for n in [20, 60, legacy.len() / 2] {
        fails(&legacy[..n], &[]);
    }
    fails(&legacy[..legacy.len() - 3], &["cut short"]);
    let mut huge = legacy.clone();
    let last = huge.windows(2).rposition(|w| w == b"e.").unwrap() + 2; // The count of the first storage.
    huge[last..last + 8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    fails(&huge, &[]);
    fails(&fs::read(fixture("legacy_wide.bin")).unwrap(), &["wide", "dtype", "got DoubleStorage"]);
    fails(&fs::read(fixture("wide.bin")).unwrap(), &["wide", "dtype", "got F64"]);
    fails(&fs::read(fixture("legacy_turned.bin")).unwrap(), &["turned", ".contiguous()"]);
    fails(b"\x80\x02}q\x00.", &["PyTorch"]);
    fails(b"GIF89a", &["PyTorch"]);
    let zip =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/pack_pytorch/pytorch_model-00001-of-00002.bin"))
            .unwrap();
    fails(&zip[..zip.len() / 2], &["PyTorch"]);
    let (model, unchanged) = (Model::golden("tiny"), |_: &str, _: &mut Vec<usize>| true);
    let whole = written(&model, unchanged);
    pytorch(dir.path(), &whole);
    let (ours, theirs) = (Checkpoint::open(dir.path().join("in")).unwrap(), Checkpoint::open(golden("tiny")).unwrap());
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!(numbers(&ours, TENSOR), numbers(&theirs, TENSOR));
    pytorch(dir.path(), &written(&model, |name, _| name != TENSOR));
    check(&failure_of(dir.path()), Code::PackInvalid, &["/in", TENSOR, "missing", "expected [112, 64], got none"]);
    let turned = written(&model, |name, shape| {
        if name == TENSOR {
            shape.reverse();
        }
        true
    });
    pytorch(dir.path(), &turned);
    let words = ["pytorch_model.bin", TENSOR, "expected [112, 64], got [64, 112]"];
    check(&failure_of(dir.path()), Code::PackInvalid, &words);
}

/// A model of f16 tensors as PyTorch before 1.6 wrote it; `keep` leaves tensors out or changes their shapes.
fn written(model: &Model, keep: impl Fn(&str, &mut Vec<usize>) -> bool) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, s: &str| {
        out.push(b'X');
        out.extend((s.len() as u32).to_le_bytes());
        out.extend(s.as_bytes());
    };
    let int = |out: &mut Vec<u8>, n: usize| {
        out.push(b'J');
        out.extend((n as i32).to_le_bytes());
    };
    let tuple = |out: &mut Vec<u8>, list: &[usize]| {
        out.push(b'(');
        list.iter().for_each(|n| int(out, *n));
        out.push(b't');
    };
    let mut tensors: Vec<(&String, Vec<usize>, &[u8])> = Vec::new();
    for (name, t) in &model.tensors {
        assert_eq!(t.dtype, Dtype::F16);
        let mut shape = t.shape.clone();
        if keep(name, &mut shape) {
            tensors.push((name, shape, &t.bytes));
        }
    }
    let mut out = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    out.extend(b"\x80\x02}(");
    for (i, (name, shape, bytes)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nHalfStorage\n");
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        int(&mut out, bytes.len() / 2);
        out.extend(b"NtQ");
        int(&mut out, 0);
        tuple(&mut out, shape);
        let stride = |axis: usize| shape[axis + 1..].iter().product();
        tuple(&mut out, &(0..shape.len()).map(stride).collect::<Vec<_>>());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.\x80\x02](");
    (0..tensors.len()).for_each(|i| text(&mut out, &i.to_string()));
    out.extend(b"e.");
    for (_, _, bytes) in &tensors {
        out.extend((bytes.len() as u64 / 2).to_le_bytes());
        out.extend(*bytes);
    }
    out
}

/// Loads a pack as every front does.
fn load(pack: &Path) -> groma::Result<()> {
    let pack = Pack::open(pack)?;
    let run = Run::default();
    block_on(Session::load(&pack, &Device::Cpu(Numerics::Exact), &run)).map(drop)
}

/// Waits for what never really waits.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(out) = work.as_mut().poll(&mut context) {
            return out;
        }
    }
}

#[test]
fn packs() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    run(&golden("tiny"), &out, &options("keep")).unwrap();
    load(&out).unwrap();
    let file = out.join("decoder.gguf.000");
    let whole = fs::read(&file).unwrap();
    let name = "blk.1.ffn_up.weight";
    let needle = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    let at = whole.windows(needle.len()).position(|w| w == needle).unwrap() + 8;
    let fails = |change: &dyn Fn(&mut Vec<u8>), code: Code, words: &[&str]| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        check(&load(&out).unwrap_err(), code, words);
    };
    // The description behind the name: axes, columns, rows, type, offset.
    let shape = at + name.len() + 4;
    fails(&|b| b[at + 4] = b'7', Code::PackInvalid, &[TENSOR, "missing", "expected [112, 64], got none"]);
    let swap = |b: &mut Vec<u8>| {
        b[shape..shape + 8].copy_from_slice(&112u64.to_le_bytes());
        b[shape + 8..shape + 16].copy_from_slice(&64u64.to_le_bytes());
    };
    fails(&swap, Code::PackInvalid, &["decoder.gguf", TENSOR, "expected [112, 64], got [64, 112]"]);
    fails(&|b| b[shape + 16] = 14, Code::PackInvalid, &["decoder.gguf", name, "dtype", "got 14"]);
    fails(&|b| b.truncate(b.len() - 1), Code::PartCorrupt, &["decoder.gguf.000", "size", "expected", "got"]);
    fails(&|b| b.fill(b'x'), Code::PackInvalid, &["decoder.gguf", "not a GGUF file"]);
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = Pack::open(&out).unwrap().verify(&Run::default()).unwrap_err();
    check(&error, Code::PartCorrupt, &["decoder.gguf.000", "SHA-256", "expected", "got"]);
}
