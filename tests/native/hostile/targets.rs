//! What is fuzzed: each takes bytes of any kind, must not panic, and checks what must hold whatever they are. Shared with
//! cargo-fuzz (`fuzz/`).
#![allow(dead_code, reason = "cargo-fuzz builds one target at a time")]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use groma::groma::config::Config;
use groma::groma::grounding::{Kind, Parser, Piece, Segment};
use groma::groma::preprocess;
use groma::groma::prompt::{self, Template};
use groma::groma::tokens::{Part, Tokens};
use groma::pack::{Checkpoint, GgufHead, Index, Manifest, Source};

/// The head of a GGUF file, as `perceiver.gguf` of a pack and alone.
pub(crate) fn gguf(data: &[u8]) {
    let size = data.len() as u64 + 4096;
    let Ok(head) = GgufHead::parse(data, size) else { return };
    for t in &head.tensors {
        assert!(t.range.start <= t.range.end && t.range.end <= size, "{} lies outside", t.name);
        let count: usize = t.info.shape.iter().product();
        let cols = t.info.shape.last().copied().unwrap_or(1);
        if t.info.shape.len() < 3 && cols > 0 {
            let want = t.info.dtype.row_bytes(cols).expect("rows are whole blocks") * (count / cols);
            assert_eq!(t.range.end - t.range.start, want as u64, "{}", t.name);
        }
    }
}

/// A pack's description; the heads of its files are what follows it in `data`, behind a zero.
pub(crate) fn manifest(data: &[u8]) {
    let cut = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (json, rest) = data.split_at(cut);
    let Ok(manifest) = Manifest::parse(json) else { return };
    let sum: u64 = manifest.parts().map(|p| p.size).sum();
    assert_eq!(sum, manifest.total);
    assert!(manifest.parts().all(|p| !p.name.contains(['/', '\\']) && p.name != ".."));
    config(&manifest.config);
    let heads = rest.strip_prefix(&[0]).unwrap_or_default();
    let index = Index::new(manifest, |_, n| Ok(heads[..heads.len().min(n as usize)].to_vec()));
    let Ok(index) = index else { return };
    for (name, t) in index.tensors() {
        let file = &index.manifest().files[t.file];
        assert!(t.range.end <= file.size, "{name} lies outside");
        let bytes: u64 = file.pieces(t.range.clone()).map(|(_, r)| r.end - r.start).sum();
        assert_eq!(bytes, t.range.end - t.range.start, "{name} in pieces");
    }
}

/// A configuration that is taken must be one to compute with.
fn config(json: &serde_json::Value) {
    let Ok(c) = Config::from_json(json) else { return };
    assert!(c.patches() > 0 && c.image_tokens() > 0 && c.llm.head_width() > 0 && c.llm.kv_heads() > 0);
    assert!(c.levels().iter().all(|s| *s > 0 && *s <= 512));
    let rope = c.llm.max_position_embeddings * c.llm.head_width();
    assert!(rope <= 1 << 25, "a rotation table of {rope} numbers");
}

/// A configuration's bytes.
pub(crate) fn configuration(data: &[u8]) {
    if let Ok(json) = serde_json::from_slice(data) {
        config(&json);
    }
}

/// A weight file of a checkpoint: safetensors, or PyTorch's in either form, as `name` says.
pub(crate) fn checkpoint(folder: &Path, name: &str, data: &[u8]) {
    fs::write(folder.join("config.json"), r#"{"llm_cfg":{"num_attention_heads":4,"hidden_size":64},"lora_alpha":8}"#)
        .expect("the folder takes files");
    let file = folder.join(name);
    fs::write(&file, data).expect("the folder takes files");
    if let Ok(source) = Checkpoint::open(folder) {
        let names: Vec<String> = source.names().map(str::to_owned).collect();
        for name in names {
            let info = source.info(&name).expect("it was listed");
            if let Ok(bytes) = source.read(&name) {
                let numbers: usize = info.shape.iter().product();
                assert_eq!(bytes.len(), numbers / info.dtype.block() * info.dtype.block_bytes(), "{name}");
            }
        }
    }
    fs::remove_file(&file).expect("it was written");
}

/// A photo.
pub(crate) fn image(data: &[u8]) {
    if let Ok(rgb) = preprocess::decode(data) {
        assert_eq!(rgb.data.len(), rgb.width * rgb.height * 3);
        assert!(rgb.width > 0 && rgb.height > 0);
        if rgb.data.len() < 1 << 22 {
            assert_eq!(preprocess::resize_bicubic(&rgb, 28).data.len(), 28 * 28 * 3);
        }
    }
}

/// Tokens of an answer: each byte is a mark, an index or some text.
pub(crate) fn grounding(data: &[u8]) {
    let Some((regions, data)) = data.split_first() else { return };
    let regions = usize::from(*regions) % 120;
    let mut parser = Parser::new(regions);
    let mut closed: Vec<Segment> = Vec::new();
    for b in data {
        parser.push(match b {
            0..=19 => Piece::PhraseOpen,
            20..=39 => Piece::PhraseClose,
            40..=59 => Piece::ListOpen,
            60..=79 => Piece::ListClose,
            80..=139 => Piece::Index(usize::from(b - 80) * 2),
            140 => Piece::Index(usize::MAX),
            141..=149 => Piece::Other,
            150..=189 => Piece::Text(" ".into()),
            190..=199 => Piece::Text("<p>\u{1f415}</p><roi>".into()),
            200..=204 => Piece::Text(String::new()),
            _ => Piece::Text(format!(" w{b}")),
        });
        for (i, before) in closed.iter().enumerate() {
            assert_eq!(&parser.segments()[i], before, "a closed segment changed");
        }
        closed = parser.segments().iter().take_while(|s| s.closed).cloned().collect();
    }
    parser.finish();
    for (i, s) in parser.segments().iter().enumerate() {
        assert!(s.closed && s.index == i, "{s:?}");
        assert!(s.regions.iter().all(|r| *r < regions), "{s:?} of {regions}");
        assert!(s.kind == Kind::Phrase || (s.regions.is_empty() && !s.text.is_empty()), "{s:?}");
        assert_eq!(s.text.trim(), s.text);
    }
}

fn golden(folder: &str) -> &'static Tokens {
    static TINY: [OnceLock<Tokens>; 2] = [OnceLock::new(), OnceLock::new()];
    TINY[usize::from(folder == "tiny2")].get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // cargo-fuzz's package lies one folder deeper.
        let root = if root.join("tests/golden").is_dir() { root } else { root.parent().expect("a folder above") };
        let path = root.join("tests/golden").join(folder).join("tokenizer.json");
        Tokens::from_bytes(&fs::read(path).expect("the goldens are there")).expect("they are right")
    })
}

/// Words that a question may be made of.
const WORDS: [&str; 16] = [
    "<p>",
    "</p>",
    "<roi>",
    "</roi>",
    "<r0>",
    "<image>",
    "<region>",
    "</s>",
    "<|im_end|>",
    "<refer_box>",
    " ",
    "\n",
    "[1]",
    "\u{2581}",
    "caf\u{e9}",
    "\u{1f415}",
];

/// What a person types, in both templates: no byte of it becomes a token that means something.
pub(crate) fn typed(data: &[u8]) {
    let mut text = String::new();
    for chunk in data.chunks(3) {
        match chunk {
            [b @ 0..=127, ..] => text.push_str(WORDS[usize::from(*b) % WORDS.len()]),
            other => text.push_str(&String::from_utf8_lossy(other)),
        }
    }
    for (folder, template) in [("tiny", Template::ChatMl), ("tiny2", Template::Vicuna)] {
        let tokens = golden(folder);
        let count = |text: &str| {
            let ids =
                tokens.encode_template(&prompt::build(template, &[vec![Part::typed(text)]])).expect("any text has ids");
            let marks =
                ["<p>", "</p>", "<roi>", "</roi>", "<r0>", "<image>", "<region>", "<refer_box>", "</s>", "<|im_end|>"];
            let marks: Vec<u32> = marks.iter().filter_map(|m| tokens.special(m)).collect();
            assert!(ids.iter().all(|id| (*id as usize) < tokens.vocabulary()));
            ids.iter().filter(|id| marks.contains(id)).count()
        };
        assert_eq!(count(&text), count("x"), "{folder}: {text:?} forged a token");
    }
    if let Ok(turn) = prompt::ask(&text, true, 2) {
        assert!(turn.boxes.iter().all(|b| *b < 2) && turn.boxes.contains(&0) && turn.boxes.contains(&1));
    }
}

/// A `tokenizer.json`, and what is asked of it.
pub(crate) fn tokenizer(data: &[u8]) {
    let Ok(tokens) = Tokens::from_bytes(data) else { return };
    let _ = tokens.encode("a <image> b</p> caf\u{e9} \u{1f415}");
    let _ = tokens.encode_template(&[Part::typed("x<p>"), Part::template("<p>y")]);
    let mut stream = tokens.stream();
    for id in (0..64).chain([400, 430, 540, u32::MAX]) {
        let _ = stream.push(id);
        let _ = tokens.piece(id);
        let _ = tokens.is_index(id);
    }
    let _ = stream.finish();
    let _ = tokens.parts(&[1, 2, 431, 435]);
}
