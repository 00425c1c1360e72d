//! The command line as users and scripts meet it: help, answers, messages, exit statuses.
//!
//! Texts are compared with `tests/native/snapshots`; `BLESS=1 cargo test --test cli` writes them anew.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

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
    for folder in ["tiny", "tiny2", "tiny3"] {
        let model = golden(folder);
        let common =
            ["--model", &model, "--device", device, "--numerics", "exact", "--json", "--max-tokens", "28", "--quiet"];
        let photo = golden(&format!("{folder}/photo_A.png"));
        let (want, case) = golden_tokens(folder, "detect_all");
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
}

#[test]
fn bench_has_its_form() {
    let groma = Groma::new();
    let report = groma.json(&[
        "bench",
        "--json",
        "--model",
        &golden("tiny"),
        "--device",
        "cpu",
        "--runs",
        "1",
        "--tokens",
        "12",
    ]);
    assert_eq!(report["schema"], 1);
    let names: Vec<&str> = report["stages"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "preprocess",
            "encoder",
            "bridge",
            "proposer",
            "region_encoder",
            "vision",
            "select",
            "region_tokens",
            "prefill",
            "decode_token"
        ]
    );
    let second = |key: &str| report["second_question"][key].as_u64().unwrap();
    assert!(second("prefilled") < second("prompt") && second("reused") + second("prefilled") == second("prompt"));
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
