//! Walls that hold (ARCHITECTURE.md): who may know what, read off the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `crate/`, with their path from there and their text without comment lines.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("the sources are readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let base = root().join("crate");
    let mut paths = Vec::new();
    walk(&base, &mut paths);
    paths.sort();
    let text = |p: &PathBuf| {
        let whole = fs::read_to_string(p).expect("a source is text");
        whole.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let name = |p: &PathBuf| p.strip_prefix(&base).expect("below crate").to_string_lossy().replace('\\', "/");
    paths.iter().map(|p| (name(p), text(p))).collect()
}

/// Files that speak of any of `words` and are in none of `rooms`.
fn strangers(words: &[&str], rooms: &[&str]) -> Vec<String> {
    sources()
        .into_iter()
        .filter(|(name, _)| !rooms.iter().any(|r| name.starts_with(r)))
        .filter(|(_, text)| words.iter().any(|w| text.contains(w)))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn only_tensor_knows_wgpu() {
    assert_eq!(strangers(&["wgpu::", "use wgpu"], &["tensor/"]), [""; 0], "wgpu is known outside tensor/");
}

#[test]
fn only_tensor_and_pack_know_candles_types() {
    // error.rs turns candle's errors into ours; sample.rs hands logits to candle-transformers' sampler.
    let rooms = ["tensor/", "pack/", "error.rs", "groma/sample.rs"];
    assert_eq!(strangers(&["candle_core", "candle_transformers"], &rooms), [""; 0], "candle is known elsewhere");
}

#[test]
fn only_web_knows_wasm_bindgen() {
    let words = ["wasm_bindgen", "web_sys", "js_sys"];
    // the one wasm-only file that uploads from JS memory by raw handles
    assert_eq!(strangers(&words, &["web/", "tensor/gpu/raw.rs"]), [""; 0], "wasm-bindgen is known elsewhere");
}

#[test]
fn only_pack_knows_file_formats() {
    let words = ["gguf", "safetensors", "pickle"];
    let names: Vec<String> = strangers(&words, &["pack/", "cli/", "web/"]);
    // the goldens of unit tests are safetensors files
    let names: Vec<_> = names.into_iter().filter(|n| n != "groma/golden.rs").collect();
    assert_eq!(names, [""; 0], "a file format is known elsewhere");
}

#[test]
fn only_the_command_line_prints() {
    let words = ["println!", "eprintln!", "print!", "eprint!"];
    let names: Vec<_> = strangers(&words, &["cli/"]).into_iter().filter(|n| !n.contains("test")).collect();
    assert_eq!(names, [""; 0], "somebody else prints");
}

#[test]
fn stages_ask_no_device() {
    let words = ["Device::Gpu", "Device::Cpu", ".is_gpu("];
    let asking: Vec<_> = strangers(&words, &["tensor/", "session/", "cli/", "web/"]);
    // the sampler hands logits to candle, on its CPU
    let asking: Vec<_> = asking.into_iter().filter(|n| n != "groma/sample.rs").collect();
    assert_eq!(asking, [""; 0], "a stage says if gpu");
}

#[test]
fn nothing_flows_backwards() {
    let backwards: Vec<_> = sources()
        .into_iter()
        .filter(|(name, _)| name.starts_with("groma/") || name.starts_with("tensor/"))
        .filter(|(_, text)| ["crate::session", "crate::cli", "crate::web"].iter().any(|w| text.contains(w)))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(backwards, [""; 0], "a stage knows who uses it");
}

#[test]
fn files_stay_short_and_say_what_they_are_for() {
    for (name, _) in sources() {
        let text = fs::read_to_string(root().join("crate").join(&name)).expect("read before");
        assert!(text.starts_with("//!"), "{name} does not begin with what it is for");
        assert!(text.lines().count() <= 600, "{name} has grown past 600 lines: it is asking to be two");
    }
}
