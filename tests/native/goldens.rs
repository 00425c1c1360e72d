//! The goldens, through the normal plans, on both devices.

use std::path::{Path, PathBuf};
use std::process::Command;

use groma::Code;
use groma::cli::verify::{self, verify};
use groma::tensor::Device;
use groma::tensor::gpu::{Gpu, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn passes(name: &str, device: &Device) {
    let summary = verify(&folder(name), device, &verify::Options::default()).expect("the folder is whole");
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
fn cpu_tiny4() {
    passes("tiny4", &Device::cpu());
}

#[test]
fn cpu_tiny5() {
    passes("tiny5", &Device::cpu());
}

#[test]
fn cpu_small() {
    passes("small", &Device::cpu());
}

/// The real bases (`npm run bases` brings them).
#[test]
fn cpu_dinov2s() {
    passes("dinov2s", &Device::cpu());
}

#[test]
fn cpu_smollm2() {
    passes("smollm2", &Device::cpu());
}

/// The folder `tiny` with a file of it changed.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for a copy");
    for entry in std::fs::read_dir(folder("tiny")).expect("readable").flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    let text = std::fs::read_to_string(dir.path().join(file)).expect("text");
    let mut json = serde_json::from_str(&text).expect("JSON");
    change(&mut json);
    std::fs::write(dir.path().join(file), json.to_string()).expect("written");
    dir
}

#[test]
fn a_missing_tensor_is_a_failure() {
    let dir = changed("manifest.json", |m| {
        // a stage that no plan computes
        let entry = m["tensors"]["A/vis.h0"].take();
        m["tensors"].as_object_mut().expect("an object").remove("A/vis.h0");
        m["tensors"]["A/vis.nowhere"] = entry;
    });
    let summary = verify(dir.path(), &Device::cpu(), &verify::Options::default()).expect("it runs");
    assert_eq!(summary.failed, 1, "the missing tensor is counted: {summary:?}");
}

#[test]
fn goldens_that_contradict_themselves_are_failures() {
    // another shape than the plan's; less compared than is stored; nothing compared
    for (key, value) in
        [("shape", json!([1, 1])), ("slice", json!([[0, 1, 1], [0, 1, 1]])), ("slice", json!([[1, 1, 1], [0, 1, 1]]))]
    {
        let dir = changed("manifest.json", |m| m["tensors"]["A/vis.h0"][key] = value.clone());
        let dump = dir.path().join("dump");
        let options = verify::Options { dump: Some(dump.clone()), ..verify::Options::default() };
        let summary = verify(dir.path(), &Device::cpu(), &options).expect("it runs, and dumps what it has");
        assert_eq!(summary.failed, 1, "{key} {value}: {summary:?}");
        assert!(dump.join("dump.safetensors").is_file(), "{key} {value}");
    }
}

#[test]
fn goldens_without_anything_to_compare_are_no_pass() {
    let dir = changed("cases.json", |c| c["cases"][0]["max_new_tokens"] = json!(0));
    let e =
        verify(dir.path(), &Device::cpu(), &verify::Options::default()).expect_err("an answer of no tokens is none");
    assert!(e.code == Code::PackInvalid && e.to_string().contains("max_new_tokens"), "{e}");

    let dir = changed("cases.json", |c| c["cases"] = json!([]));
    std::fs::remove_file(dir.path().join("tokenizer_cases.json")).expect("removed");
    std::fs::write(dir.path().join("manifest.json"), "{}").expect("written");
    let e = verify(dir.path(), &Device::cpu(), &verify::Options::default()).expect_err("nothing was shown");
    assert!(e.code == Code::PackInvalid && e.to_string().contains("nothing to compare"), "{e}");
}

/// A Python that has what check.py needs: `GROMA_PYTHON`, which `npm test` sets, else `python3` if it happens to.
fn python() -> Option<String> {
    let asked = std::env::var("GROMA_PYTHON").ok();
    let program = asked.clone().unwrap_or_else(|| "python3".to_owned());
    let has = Command::new(&program).args(["-c", "import numpy, safetensors.numpy"]).output();
    let has = has.is_ok_and(|o| o.status.success());
    assert!(has || asked.is_none(), "{program} lacks numpy or safetensors");
    has.then_some(program)
}

/// The specification's own judge looks at what `verify --dump` wrote: it must say what `verify` says.
#[test]
#[expect(clippy::print_stderr, reason = "a test that did nothing says so")]
fn what_verify_dumps_passes_the_specifications_own_check() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with numpy and safetensors");
        return;
    };
    let judged = |name: &str, dump: &Path| {
        let check = folder("check.py");
        let out = Command::new(&python).arg("-B").arg(check).arg(folder(name)).arg(dump).arg("--complete").output();
        let out = out.expect("it starts");
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    for name in ["ops", "tiny4", "tiny5"] {
        let dir = tempfile::tempdir().expect("a folder for the dump");
        let options = verify::Options { dump: Some(dir.path().to_owned()), ..verify::Options::default() };
        let summary = verify(&folder(name), &Device::cpu(), &options).expect("the folder is whole");
        let (code, said) = judged(name, dir.path());
        assert_eq!((summary.failed, code), (0, Some(0)), "{name}: {said}");
        if name == "ops" {
            continue;
        }
        let path = dir.path().join("results.json");
        let mut results: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
        results["detect_all"]["tokens"][0] = json!(0);
        std::fs::write(&path, results.to_string()).expect("written");
        let (code, said) = judged(name, dir.path());
        assert!(code == Some(1) && said.contains("FAIL detect_all.tokens"), "{name}: {said}");
    }
}

/// The same on a GPU: whatever Vulkan adapter there is, which in CI is a software one.
fn gpu_passes(name: &str) {
    let gpu = pollster::block_on(Gpu::create(Options::from_env())).expect("a Vulkan adapter (Mesa's lavapipe will do)");
    passes(name, &Device::Gpu(gpu));
}

#[test]
fn gpu_ops() {
    gpu_passes("ops");
}

#[test]
fn gpu_tiny() {
    gpu_passes("tiny");
}

#[test]
fn gpu_tiny2() {
    gpu_passes("tiny2");
}

#[test]
fn gpu_tiny3() {
    gpu_passes("tiny3");
}

#[test]
fn gpu_tiny4() {
    gpu_passes("tiny4");
}

#[test]
fn gpu_tiny5() {
    gpu_passes("tiny5");
}

#[test]
fn gpu_small() {
    gpu_passes("small");
}

#[test]
fn gpu_dinov2s() {
    gpu_passes("dinov2s");
}

#[test]
fn gpu_smollm2() {
    gpu_passes("smollm2");
}
