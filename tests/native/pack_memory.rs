//! Conversion streams. Alone in its process, since the process's memory is what is measured.
#![cfg(target_os = "linux")]

mod pack_common;

use std::fs;
use std::io::{Seek, Write};

use pack_common::{Model, options, run};
use serde_json::json;

/// Issue: peak memory at most the largest tensor and 512 MiB. Rows stream, so far less is needed than even that.
#[test]
fn conversion_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::golden("tiny");
    let rows: usize = 4_000_000; // 4000000 * 64 * 2 bytes are 488 MiB, all holes.
    model.config["llm_cfg"]["vocab_size"] = json!(rows);
    model.tensors.remove("llm.model.embed_tokens.weight");
    model.tokenizer = None;
    fs::create_dir_all(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/config.json"), model.config.to_string()).unwrap();
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, t) in &model.tensors {
        header.insert(name.clone(), json!({"dtype": "F16", "shape": t.shape, "data_offsets": [at, at + t.bytes.len()]}));
        at += t.bytes.len();
    }
    let bytes = rows * 64 * 2;
    header.insert("llm.model.embed_tokens.weight".into(), json!({"dtype": "F16", "shape": [rows, 64], "data_offsets": [at, at + bytes]}));
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = fs::File::create(dir.path().join("in/model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    model.tensors.values().for_each(|t| file.write_all(&t.bytes).unwrap());
    let end = file.stream_position().unwrap() + bytes as u64;
    file.set_len(end).unwrap();

    let before = peak();
    run(&dir.path().join("in"), &dir.path().join("out"), &options("q4_0")).unwrap();
    let grown = peak() - before;
    assert!(grown < 200 << 20, "{} MiB for a tensor of 488 MiB", grown >> 20);
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
