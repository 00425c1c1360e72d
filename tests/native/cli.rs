//! The command line as users and scripts meet it: help, answers, messages, exit statuses.
//!
//! Texts are compared with `tests/native/snapshots`; `BLESS=1 cargo test --test cli` writes them anew.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn golden(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path).to_str().unwrap().to_owned()
}

/// `groma` in an empty folder, with nothing of this machine's own settings.
struct Groma {
    folder: tempfile::TempDir,
}

impl Groma {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_groma"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["GROMA_MODEL", "NO_COLOR", "RUST_BACKTRACE", "COLUMNS"] {
            command.env_remove(name);
        }
        command.env("HOME", self.folder.path()).env("XDG_DATA_HOME", self.path("data"));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn snapshot(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs (BLESS=1 accepts it):\n--- want\n{want}\n--- got\n{got}");
}

const COMMANDS: [&str; 11] =
    ["ask", "detect", "locate", "caption", "describe", "regions", "convert", "verify", "bench", "info", "completions"];

#[test]
fn help_is_as_reviewed() {
    let groma = Groma::new();
    let out = groma.run(&["--help"]);
    assert_eq!(out.status.code(), Some(0));
    snapshot("help", &text(&out.stdout));
    for command in COMMANDS {
        let out = groma.run(&[command, "--help"]);
        assert_eq!(out.status.code(), Some(0), "{command}");
        let help = text(&out.stdout);
        assert!(help.contains("Example") && !help.contains('\x1b'), "{command}");
        snapshot(&format!("help-{command}"), &help);
    }
    let alone = groma.run(&[]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(text(&alone.stderr).contains("Examples:"));
}

#[test]
fn failures_say_what_and_have_their_status() {
    let groma = Groma::new();
    let (photo, tiny) = (golden("tiny/photo_A.png"), golden("tiny"));
    std::fs::write(groma.path("note.txt"), "no picture").unwrap();
    std::fs::write(groma.path("cut.png"), &std::fs::read(&photo).unwrap()[..500]).unwrap();
    std::fs::create_dir(groma.path("empty")).unwrap();
    let long = "word ".repeat(5000);
    let mut all = String::new();
    for (status, args) in [
        (2, vec!["ask", "nope.png", "What?"]),
        (2, vec!["ask", "empty", "What?"]),
        (1, vec!["ask", "note.txt", "What?"]),
        (1, vec!["ask", "cut.png", "What?"]),
        (2, vec!["ask", &photo, " "]),
        (2, vec!["detect", &photo, ""]),
        (2, vec!["ask", &photo, "What is [2]?", "--box", "1,1,20,20"]),
        (2, vec!["caption", &photo, "--box", "9000,10,9100,20"]),
        (2, vec!["caption", &photo, "--box", "9,9,3,10"]),
        (2, vec!["caption", &photo]),
        (2, vec!["ask", &photo, "What?", "--overlay", "out.gif"]),
        (2, vec!["ask", &photo, "What?", "--overlay", "nowhere/out.png"]),
        (2, vec!["ask", &photo, "What?", "--temperature", "-1"]),
        (2, vec!["ask", &photo, "What?", "--max-tokens", "0"]),
        (2, vec!["aks", &photo, "What?"]),
        (3, vec!["ask", &photo, "What?"]),
        (3, vec!["ask", &photo, "What?", "--model", "empty"]),
        (3, vec!["info", "--model", "no/such/folder"]),
        (2, vec!["ask", &photo, &long, "--model", &tiny, "--device", "cpu"]),
        (2, vec!["verify", "empty", "--device", "cpu"]),
    ] {
        let out = groma.run(&args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(status), "{args:?}: {said}");
        assert!(out.stdout.is_empty(), "{args:?} spoke on stdout");
        let shown: Vec<String> =
            args.iter().map(|a| if a.len() > 200 { "(a long question)".into() } else { format!("{a:?}") }).collect();
        all.push_str(&format!("$ groma {}\n{said}({status})\n\n", shown.join(" ")));
    }
    let all = all.replace(env!("CARGO_MANIFEST_DIR"), ".").replace(groma.folder.path().to_str().unwrap(), "~");
    snapshot("failures", &all);
}

/// A golden case of the tiny models that a command line call can state.
fn golden_tokens(folder: &str, id: &str) -> (Value, Value) {
    let book: Value = serde_json::from_slice(&std::fs::read(golden(&format!("{folder}/cases.json"))).unwrap()).unwrap();
    let case = book["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone();
    (case["expect"]["tokens"].clone(), case)
}

/// The same tokens as the reference, on a device.
fn answers_are_the_goldens(device: &str) {
    let groma = Groma::new();
    for folder in ["tiny", "tiny2", "tiny3", "tiny4", "tiny5"] {
        let model = golden(folder);
        let (want, case) = golden_tokens(folder, "detect_all");
        let max = case["max_new_tokens"].to_string();
        let common =
            ["--model", &model, "--device", device, "--numerics", "exact", "--json", "--max-tokens", &max, "--quiet"];
        let photo = golden(&format!("{folder}/photo_A.png"));
        let turn = case["turns"][0].as_str().unwrap();
        let label = turn.split("<p>").nth(1).unwrap().split("</p>").next().unwrap();
        let got = groma.json(&[["detect", &photo, label].as_slice(), &common].concat());
        assert_eq!(got["tokens"], want, "{folder}");
        assert_eq!(got["regions"].as_array().unwrap().len() as u64, case["expect"]["num_regions"].as_u64().unwrap());

        let (want, case) = golden_tokens(folder, "region_short");
        let (w, h) = (got["photo"]["width"].as_f64().unwrap(), got["photo"]["height"].as_f64().unwrap());
        let b: Vec<f64> = case["refer_boxes"][0].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let x = |side: f64| (b[0] + side * b[2] / 2.0) * w;
        let y = |side: f64| (b[1] + side * b[3] / 2.0) * h;
        let bbox = format!("{},{},{},{}", x(-1.0), y(-1.0), x(1.0), y(1.0));
        let got = groma.json(&[["caption", &photo, "--box", &bbox].as_slice(), &common].concat());
        assert_eq!(got["tokens"], want, "{folder}");
    }
}

#[test]
fn answers_of_the_processor_are_the_goldens() {
    answers_are_the_goldens("cpu");
}

#[test]
fn answers_of_the_gpu_are_the_goldens() {
    answers_are_the_goldens("gpu");
}

#[cfg(target_os = "linux")]
#[test]
fn without_an_adapter_the_processor_is_used_or_named() {
    let groma = Groma::new();
    let run = |device: &str| {
        let args = ["regions", &golden("tiny/photo_A.png"), "--model", &golden("tiny"), "--device", device];
        let mut command = groma.command(&args);
        // Vulkan's loader finds no driver there.
        command.env("VK_DRIVER_FILES", "/dev/null").env("VK_ICD_FILENAMES", "/dev/null").output().unwrap()
    };
    let out = run("gpu");
    assert_eq!(out.status.code(), Some(4), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(said.contains("error[no-webgpu]") && said.contains("--device cpu"), "{said}");
    assert_eq!(run("auto").status.code(), Some(0));
    let mut command = groma.command(&["info", "--model", &golden("tiny"), "--device", "gpu"]);
    let out = command.env("VK_DRIVER_FILES", "/dev/null").env("VK_ICD_FILENAMES", "/dev/null").output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("device   none: "), "{}", text(&out.stdout));
}

#[test]
fn text_streams_to_stdout_and_boxes_are_drawn() {
    let groma = Groma::new();
    let (photo, tiny) = (golden("tiny/photo_A.png"), golden("tiny"));
    let common = ["--model", &tiny, "--device", "cpu", "--max-tokens", "24", "--overlay", "out.png"];
    let out = groma.run(&[["describe", &photo].as_slice(), &common].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.ends_with(b"\n") && !out.stdout.contains(&0x1b));
    assert!(std::fs::read(groma.path("out.png")).unwrap().starts_with(b"\x89PNG"));
    let quiet = groma.run(&[["describe", &photo, "--quiet"].as_slice(), &common].concat());
    assert_eq!((text(&quiet.stderr), &quiet.stdout), (String::new(), &out.stdout));

    let mut child = groma.start(&[["describe", "-"].as_slice(), &common].concat());
    child.stdin.take().unwrap().write_all(&std::fs::read(&photo).unwrap()).unwrap();
    let piped = child.wait_with_output().unwrap();
    assert_eq!(piped.stdout, out.stdout, "a photo on stdin is the same photo");
}

#[test]
fn regions_are_listed_and_filtered() {
    let groma = Groma::new();
    let photo = golden("tiny2/photo_A.png");
    let common = ["regions", &photo, "--model", &golden("tiny2"), "--device", "cpu"];
    let all = groma.json(&[common.as_slice(), &["--json"]].concat());
    let regions = all["regions"].as_array().unwrap();
    assert!(regions.len() > 3 && all["photo"]["width"].as_u64() > Some(0));
    let score = |r: &Value| r["score"].as_f64().unwrap();
    assert!(regions.windows(2).all(|r| score(&r[0]) >= score(&r[1])));
    assert_eq!(regions[1].as_object().unwrap().keys().collect::<Vec<_>>(), ["box", "id", "score"]);
    let threshold = format!("{}", score(&regions[2]));
    let few = groma.json(&[common.as_slice(), &["--json", "--min-score", &threshold]].concat());
    assert_eq!(few["regions"].as_array().unwrap()[..], regions[..2]);
    let none = groma.json(&[common.as_slice(), &["--json", "--min-score", "1"]].concat());
    assert_eq!(none["regions"].as_array().unwrap().len(), 0);
    let one = groma.json(&[common.as_slice(), &["--json", "--limit", "1", "--nms", "0.1"]].concat());
    assert_eq!(one["regions"].as_array().unwrap()[..], regions[..1]);
    let every =
        groma.json(&[common.as_slice(), &["--json", "--limit", "1000", "--nms", "1", "--min-score", "0"]].concat());
    assert_eq!(
        every["regions"].as_array().unwrap().len(),
        24,
        "every query of the proposer, not only max_region_num 12"
    );
    let lines = groma.run(&[common.as_slice(), &["--limit", "2"]].concat());
    assert_eq!(text(&lines.stdout).lines().count(), 2);
}

#[test]
fn the_environment_names_a_model_and_an_option_wins() {
    let groma = Groma::new();
    let out = groma.command(&["info", "--json"]).env("GROMA_MODEL", golden("tiny")).output().unwrap();
    let info: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(info["model"]["place"], golden("tiny"));
    let out =
        groma.command(&["info", "--json", "-m", &golden("tiny2")]).env("GROMA_MODEL", "nowhere").output().unwrap();
    let info: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(info["model"]["place"], golden("tiny2"));
}

#[test]
fn a_converted_pack_answers() {
    let groma = Groma::new();
    let (tiny, photo) = (golden("tiny"), golden("tiny/photo_A.png"));
    let convert =
        |args: &[&str]| groma.run(&[["convert", &tiny, "-o", "data/groma/models/small"].as_slice(), args].concat());
    let wrong = convert(&["--quant", "q3"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    assert!(!groma.path("data/groma/models/small").exists(), "nothing half-written stays");
    let out = convert(&["--quant", "f16"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(convert(&[]).status.code(), Some(2), "a pack is not replaced by accident");
    assert_eq!(convert(&["--force", "--quant", "f16", "--quiet"]).stderr, b"");
    let info = groma.json(&["info", "--json", "--model", "small"]);
    assert_eq!(info["model"]["name"], "tiny", "a pack is called as its source");
    let calls = ["small", &tiny].map(|model| {
        groma.json(&["describe", &photo, "--json", "--model", model, "--device", "cpu", "--numerics", "exact"])
    });
    assert_eq!(calls[0]["tokens"], calls[1]["tokens"], "the weights were f16 all along");

    let said = groma.json(&["convert", &tiny, "-o", "other", "--json"]);
    let parts = ["tokenizer.json", "perceiver.gguf", "decoder.gguf"];
    assert_eq!(said["files"].as_array().unwrap().iter().map(|f| &f["name"]).collect::<Vec<_>>(), parts);
    assert_eq!((&said["name"], &said["place"]), (&json!("tiny"), &json!("other")));

    // One bit of a weight: nothing else would notice.
    let part = groma.path("other/decoder.gguf.000");
    let mut bytes = std::fs::read(&part).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&part, bytes).unwrap();
    for call in [["describe", &photo, "--model", "other"].as_slice(), &["bench", "--model", "other"]] {
        let out = groma.run(&[call, &["--device", "cpu"]].concat());
        let said = text(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains("error[part-corrupt]"), "{call:?}: {said}");
        assert!(said.contains("decoder.gguf.000") && said.contains("SHA-256"), "{call:?}: {said}");
    }
}

#[test]
fn a_config_that_no_engine_takes_is_not_converted() {
    let groma = Groma::new();
    let folder = groma.path("odd");
    std::fs::create_dir(&folder).unwrap();
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(golden(&format!("tiny/{name}")), folder.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&std::fs::read(golden("tiny/config.json")).unwrap()).unwrap();
    config["perceiver_cfg"]["vis_encoder_cfg"]["num_attention_heads"] = json!(5);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let out = groma.run(&["convert", "odd", "-o", "pack"]);
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("hidden_size: "), "{said}");
    assert!(said.contains("expected a multiple of 5 (num_attention_heads), got "), "{said}");
    assert!(!groma.path("pack").exists());
}

#[test]
fn verify_tells_failures_only_or_one_object() {
    let groma = Groma::new();
    let grammar = std::fs::read(golden("grammar.json")).unwrap();
    let mut book: Value = serde_json::from_slice(&grammar).unwrap();
    book["cases"][2]["segments"] = json!([]);
    std::fs::create_dir(groma.path("goldens")).unwrap();
    std::fs::write(groma.path("goldens/grammar.json"), book.to_string()).unwrap();
    let out = groma.run(&["verify", "goldens", "--device", "cpu", "--quiet"]);
    let said = text(&out.stdout);
    let begins: Vec<_> = said.lines().map(|l| l.split(':').next().unwrap_or_default()).collect();
    assert_eq!((out.status.code(), begins), (Some(1), vec!["FAIL grammar/2", "grammar", "all folders"]));
    let out = groma.run(&["verify", "goldens", "--device", "cpu", "--json"]);
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["passed"], &said["failed"]), (&json!(14), &json!(1)));
    let third = &said["comparisons"][2];
    assert_eq!((&third["name"], &third["pass"]), (&json!("grammar/2"), &json!(false)));
}

/// The report's form (schema 1): every key is there, and nothing is null.
fn check_bench(report: &Value, stages: &[&str], eyes_only: bool) {
    let keys = |v: &Value| v.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        names.sort();
        names
    };
    let top = ["schema", "commit", "pack", "device", "stages", "decode", "second_question", "memory"];
    assert_eq!(keys(report), sorted(&top));
    assert_eq!(report["schema"], 1);
    let hex = |v: &Value, digits: usize| {
        let text = v.as_str().expect("text");
        assert!(text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
    };
    // an archive of the sources has no commit
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        hex(&report["commit"], 40);
    }
    assert_eq!(keys(&report["pack"]), sorted(&["name", "sha256", "quantisation"]));
    hex(&report["pack"]["sha256"], 64);
    assert_eq!(keys(&report["device"]), sorted(&["kind", "name", "type", "limits"]));
    for rate in ["flops_per_second", "bytes_per_second"] {
        assert!(report["device"]["limits"][rate].as_f64().expect("a number") > 1e6, "{rate}");
    }
    let counters = [
        "dispatches",
        "passes",
        "submits",
        "readbacks",
        "bind_groups_created",
        "buffers_created",
        "bytes_up",
        "bytes_down",
    ];
    let names: Vec<&str> =
        report["stages"].as_array().expect("a list").iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, stages);
    for s in report["stages"].as_array().expect("a list") {
        assert_eq!(keys(s), sorted(&["name", "ms", "flops", "bytes", "floor_ms", "counters"]));
        let ms = |key: &str| s["ms"][key].as_f64().expect("a number");
        assert!(0.0 < ms("min") && ms("min") <= ms("median"), "{s}");
        assert!(s["floor_ms"].as_f64().expect("a number") > 0.0, "{s}");
        assert_eq!(keys(&s["counters"]), sorted(&counters));
    }
    let memory = &report["memory"];
    assert_eq!(keys(memory), sorted(&["weights", "kv", "largest_activation", "peak"]));
    let bytes = |key: &str| memory[key].as_u64().expect("a number");
    assert!(bytes("weights") > 0 && bytes("largest_activation") > 0 && bytes("peak") > bytes("weights"), "{memory}");
    if eyes_only {
        assert!(report["decode"].is_null() && report["second_question"].is_null());
        return;
    }
    let decode = &report["decode"];
    let of_decode = [
        "tokens",
        "layers",
        "dispatches_in_layers",
        "dispatches_other",
        "bytes_per_token",
        "ideal_bytes_per_token",
        "counters",
    ];
    assert_eq!(keys(decode), sorted(&of_decode));
    assert_eq!(keys(&decode["counters"]), sorted(&counters));
    let number = |key: &str| decode[key].as_u64().expect("a number");
    assert!(number("ideal_bytes_per_token") <= number("bytes_per_token"), "{decode}");
    assert_eq!(
        number("tokens") * (number("dispatches_in_layers") + number("dispatches_other")),
        decode["counters"]["dispatches"].as_u64().expect("a number"),
        "the plan's dispatches are those that were counted: {decode}"
    );
    let second = |key: &str| report["second_question"][key].as_u64().unwrap();
    assert!(second("prefilled") < second("prompt") && second("reused") + second("prefilled") == second("prompt"));
    assert!(bytes("kv") > 0, "{memory}");
}

const ALL_STAGES: [&str; 9] =
    ["preprocess", "encoder", "bridge", "proposer", "region_encoder", "select", "prompt", "prefill", "decode"];

#[test]
fn bench_has_its_form() {
    let groma = Groma::new();
    let tiny = golden("tiny");
    let args = ["bench", "--json", "--model", &tiny, "--device", "cpu", "--runs", "1", "--tokens", "12"];
    check_bench(&groma.json(&args), &ALL_STAGES, false);
    let args = ["bench", "--json", "--model", &tiny, "--device", "cpu", "--runs", "2", "--side", "42"];
    check_bench(&groma.json(&args), &["preprocess", "encoder"], true);
    let out = groma.run(&["bench", "--model", &tiny, "--device", "cpu", "--side", "8400000000"]);
    assert_eq!(out.status.code(), Some(2), "no memory is taken for it: {}", text(&out.stderr));
    let out = groma.run(&["bench", "--model", &tiny, "--device", "cpu", "--runs", "1", "--tokens", "12"]);
    assert!(text(&out.stdout).contains("floor ms") && text(&out.stdout).contains("second_question"));
}

#[test]
fn gpu_bench_has_its_form() {
    let groma = Groma::new();
    let tiny = golden("tiny");
    let args = ["bench", "--json", "--model", &tiny, "--device", "gpu", "--runs", "1", "--tokens", "24"];
    let report = groma.json(&args);
    check_bench(&report, &ALL_STAGES, false);
    assert!(report["decode"]["dispatches_in_layers"].as_u64() > Some(0), "{}", report["decode"]);
    for s in report["stages"].as_array().unwrap() {
        let host = ["preprocess", "prompt", "select"].contains(&s["name"].as_str().unwrap());
        assert!(host || s["counters"]["dispatches"].as_u64() > Some(0), "{s}");
    }
}

/// Weights of noise, made on the device: a bare Llama of any size, and a whole model, on both devices.
#[test]
fn gpu_bench_takes_a_configuration_alone() {
    let groma = Groma::new();
    let llama = r#"{"llm_cfg": {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}}"#;
    std::fs::write(groma.path("llama.json"), llama).unwrap();
    let whole = golden("tiny2/config.json");
    for device in ["cpu", "gpu"] {
        for quant in ["q4_0", "f16"] {
            let path = groma.path("llama.json");
            let args = ["bench", "--json", "--device", device, "--runs", "1", "--tokens", "12", "--quant", quant];
            let mut command = groma.command(&[&args[..], &["--random", path.to_str().unwrap()]].concat());
            // whoever has named a model for every call may still measure another
            let out = command.env("GROMA_MODEL", "nowhere").output().unwrap();
            assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            check_bench(&report, &["prefill", "decode"], false);
            assert_eq!(report["pack"]["quantisation"]["all"], quant);
        }
        let args = ["bench", "--json", "--device", device, "--runs", "1", "--tokens", "12", "--random", &whole];
        check_bench(&groma.json(&args), &ALL_STAGES, false);
    }
}

#[test]
fn completions_name_every_command() {
    let groma = Groma::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = groma.run(&["completions", shell]);
        let script = text(&out.stdout);
        assert!(out.status.success() && COMMANDS.iter().all(|c| script.contains(c)), "{shell}");
    }
}

/// A call that takes long enough to be stopped: as many tokens as the context holds.
fn long_call(groma: &Groma) -> Child {
    let args = [
        "describe",
        &golden("tiny/photo_A.png"),
        "--model",
        &golden("tiny"),
        "--device",
        "cpu",
        "--max-tokens",
        "1900",
    ];
    groma.start(&args)
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_what_was_said() {
    let groma = Groma::new();
    let mut child = long_call(&groma);
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let start = Instant::now();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", text(&out.stderr));
    assert!(out.stdout.ends_with(b"\n") && text(&out.stderr).contains("interrupted"));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let groma = Groma::new();
    let mut child = long_call(&groma);
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(!text(&out.stderr).contains("panicked"));
}

/// A call by the shell, which can limit and close what programs can't for their children.
#[cfg(target_os = "linux")]
fn shell(groma: &Groma, before: &str, args: &[&str], after: &str) -> Output {
    let quoted = args.iter().map(|a| format!("'{a}'")).collect::<Vec<_>>().join(" ");
    let command = groma.command(&[]);
    let script = format!("{before} exec '{}' {quoted} {after}", command.get_program().to_str().unwrap());
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).current_dir(groma.folder.path()).stdin(Stdio::null());
    sh.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).env_remove("GROMA_MODEL").env_remove("NO_COLOR");
    sh.output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_nothing_stays() {
    // A file of more than 512 bytes is refused as by a full disk; the signal that would end us is ignored.
    const FULL: &str = "ulimit -f 1; trap '' XFSZ;";
    let groma = Groma::new();
    let (tiny, photo) = (golden("tiny"), golden("tiny/photo_A.png"));
    for (args, file) in [
        (vec!["convert", &tiny, "-o", "pack"], "tokenizer.json"),
        (vec!["regions", &photo, "--model", &tiny, "--device", "cpu", "--overlay", "out.png"], "out.png"),
        (vec!["verify", &tiny, "--device", "cpu", "--dump", "dump"], "dump.safetensors"),
    ] {
        let out = shell(&groma, FULL, &args, "");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("error[out-of-storage]: ") && said.contains(file), "{args:?}: {said}");
        assert!(said.contains("make room"), "{said}");
        let left: Vec<_> = std::fs::read_dir(groma.folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        let left = left.iter().filter(|p| !p.is_dir() || std::fs::read_dir(p).unwrap().next().is_some());
        assert_eq!(left.count(), 0, "{args:?} left something");
    }
    let out = shell(&groma, "", &["info", "--model", &tiny, "--device", "cpu"], "> /dev/full");
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("error[out-of-storage]: stdout: can't write"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_late_leaves_nothing_either() {
    let groma = Groma::new();
    // The tokenizer and the first file fit, the second does not; a pack that was there stays what it was.
    let tiny = golden("tiny");
    assert_eq!(groma.run(&["convert", &tiny, "-o", "pack"]).status.code(), Some(0));
    let before = std::fs::read(groma.path("pack/model.json")).unwrap();
    let size = |name: &str| std::fs::metadata(groma.path("pack").join(name)).unwrap().len();
    let (first, second) = (size("perceiver.gguf.000"), size("decoder.gguf.000"));
    let (less, more) = (first.min(second), first.max(second));
    let blocks = (less + more) / 2 / 512;
    let late = format!("ulimit -f {blocks}; trap '' XFSZ;");
    let out = shell(&groma, &late, &["convert", &tiny, "-o", "pack", "--force"], "");
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("error[out-of-storage]"), "{said}");
    assert!(said.contains(".gguf.000"), "{said}");
    let names: Vec<_> = std::fs::read_dir(groma.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["pack"]);
    assert_eq!(std::fs::read(groma.path("pack/model.json")).unwrap(), before);
}

#[test]
fn nobody_listening_is_no_failure_of_verify() {
    let groma = Groma::new();
    std::fs::create_dir(groma.path("goldens")).unwrap();
    std::fs::copy(golden("grammar.json"), groma.path("goldens/grammar.json")).unwrap();
    let mut child = groma.start(&["verify", "goldens", "--device", "cpu"]);
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
    let out = groma.run(&["verify", "goldens", "--device", "cpu"]);
    assert!(text(&out.stdout).ends_with("all folders: 15 passed, 0 failed\n"), "{}", text(&out.stdout));
}

#[cfg(target_os = "linux")]
#[test]
fn errors_that_can_not_be_told_keep_their_status() {
    let groma = Groma::new();
    assert_eq!(shell(&groma, "", &["info", "--model", "nowhere"], "2> /dev/full").status.code(), Some(3));
    assert_eq!(shell(&groma, "", &["info", "--model", "nowhere"], "2>&-").status.code(), Some(3));
}

/// Our own weights are a model before they are converted, if their bases are there.
#[test]
fn an_unconverted_folder_is_opened_with_its_bases() {
    let groma = Groma::new();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/groma-s");
    let ours = ours.to_str().unwrap();
    let out = groma.run(&["regions", &golden("tiny/photo_A.png"), "--model", ours, "--device", "cpu"]);
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(3) && said.contains("error[no-model]"), "{said}");
    assert!(said.contains("vit_s_focus.onnx") && said.contains("npm run bases"), "{said}");
    let args = ["verify", &golden("dinov2s"), "--device", "cpu", "--bases", "nowhere"];
    let out = groma.run(&args);
    let said = text(&out.stderr);
    assert!(out.status.code() == Some(3) && said.contains("npm run bases"), "an absent base is no pass: {said}");
    assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    // alone and among others, a program still gets its object
    std::fs::create_dir(groma.path("goldens")).unwrap();
    std::fs::create_dir(groma.path("goldens/dinov2s")).unwrap();
    for entry in std::fs::read_dir(golden("dinov2s")).unwrap().flatten() {
        std::fs::copy(entry.path(), groma.path("goldens/dinov2s").join(entry.file_name())).unwrap();
    }
    std::fs::copy(golden("grammar.json"), groma.path("goldens/grammar.json")).unwrap();
    for (place, passed) in [("goldens/dinov2s", 0), ("goldens", 15)] {
        let out = groma.run(&["verify", place, "--device", "cpu", "--bases", "nowhere", "--json"]);
        assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
        let said: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&said["passed"], &said["failed"]), (&json!(passed), &json!(1)), "{said}");
        let first = &said["comparisons"][0];
        assert_eq!((&first["name"], &first["pass"]), (&json!("goldens/dinov2s"), &json!(false)), "{said}");
        assert!(first["text"].as_str().unwrap().contains("npm run bases"), "{said}");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let bases = std::env::var_os("GROMA_BASES").map_or(home.join(".cache/groma/bases"), PathBuf::from);
    let mut command = groma.command(&["info", "--model", ours, "--device", "cpu", "--json"]);
    let out = command.env("GROMA_BASES", bases).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let info: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(info["model"]["kind"], "checkpoint");
}
