//! The goldens, through the normal plans, on the CPU device.

use std::path::PathBuf;

use groma::cli::verify::verify;
use groma::tensor::Device;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn passes(name: &str, device: &Device) {
    let summary = verify(&folder(name), device, None, None).expect("the folder is whole");
    assert_eq!(summary.failed, 0, "{name}: {summary:?}");
    assert!(summary.passed > 10, "{name} compared almost nothing: {summary:?}");
}

#[test]
fn cpu_ops() {
    passes("ops", &Device::cpu());
}

#[test]
fn cpu_tiny() {
    passes("tiny", &Device::cpu());
}

#[test]
fn cpu_tiny2() {
    passes("tiny2", &Device::cpu());
}

#[test]
fn cpu_tiny3() {
    passes("tiny3", &Device::cpu());
}

#[test]
fn cpu_small() {
    passes("small", &Device::cpu());
}

#[test]
fn a_missing_tensor_is_a_failure() {
    let dir = tempfile::tempdir().expect("a folder for a copy");
    for file in
        ["config.json", "model.safetensors", "tokenizer.json", "expected.safetensors", "photo_A.png", "photo_B.png"]
    {
        std::fs::copy(folder("tiny").join(file), dir.path().join(file)).expect("copied");
    }
    let read = |file: &str| std::fs::read_to_string(folder("tiny").join(file)).expect("text");
    let cases = read("cases.json");
    std::fs::write(dir.path().join("cases.json"), cases).expect("written");
    // a stage that no plan computes
    let manifest = read("manifest.json").replacen("A/vis.h0", "A/vis.nowhere", 1);
    std::fs::write(dir.path().join("manifest.json"), manifest).expect("written");
    let summary = verify(dir.path(), &Device::cpu(), None, None).expect("it runs");
    assert_eq!(summary.failed, 1, "the missing tensor is counted: {summary:?}");
}
