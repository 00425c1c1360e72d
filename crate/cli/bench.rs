//! `bench`: what every stage costs, beside what the device could do. The measuring is the library's.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::args::Bench;
use super::engine::{self, Opened, with_run};
use super::out::{Aside, Out};
use crate::error::{At, Code, Error, Result};
use crate::pack::hex;
use crate::session::Model;
use crate::session::bench::{self, Options};
use crate::tensor::DType;
use crate::tensor::plan::{Cancel, Run};
use crate::tensor::probe::Rates;

/// Measures.
pub(super) async fn bench(args: &Bench, cancel: &Cancel) -> Result<ExitCode> {
    let aside = Aside::new(args.output.quiet);
    let (model, pack, rates) = load(args, &aside, cancel).await?;
    let mut run = Run::default();
    run.cancel = cancel.clone();
    let options = Options { runs: args.runs, tokens: args.tokens, side: args.side, rates, process_peak };
    aside.stage("measuring");
    let measured = bench::measure(&model, &options, &run, &|done, all| aside.progress(done, all)).await?;
    aside.clear();
    let report = bench::report(&model, pack, rates, &measured)?;
    let mut out = Out::stdout();
    if args.output.json {
        out.json(&report)?
    } else {
        out.say(&text(&report))?
    }
    Ok(ExitCode::SUCCESS)
}

/// The model, what is said of its files, and what the device can do (measured before the weights fill it).
async fn load(args: &Bench, aside: &Aside, cancel: &Cancel) -> Result<(Rc<Model>, Value, Rates)> {
    // A missing model is cheaper to find out than a device.
    let source = match &args.random {
        Some(path) => Err(configuration(path)?),
        None => Ok(engine::open(args.engine.model.as_deref())?),
    };
    let device = engine::device(args.engine.device, args.engine.numerics).await?;
    aside.stage("measuring the device");
    let rates = Rates::measure(&device, &Run::default()).await?;
    match source {
        Ok(opened) => {
            engine::check(&opened, aside, cancel).await?;
            aside.stage("loading the model");
            let load = async |run: &Run<'_>| Model::load(opened.source(), &device, run).await;
            let model = with_run(aside, cancel, load).await?;
            let pack = match &opened {
                Opened::Checkpoint(_) => {
                    let path = engine::find(args.engine.model.as_deref())?;
                    let types: BTreeSet<&str> = model.weights().types().map(DType::as_str).collect();
                    let types = types.into_iter().collect::<Vec<_>>().join(", ");
                    json!({ "name": name(&path), "sha256": hash_folder(&path)?, "quantisation": { "all": types } })
                }
                Opened::Pack(p) => {
                    let m = p.index().manifest();
                    let path = engine::find(args.engine.model.as_deref())?;
                    let file = if path.is_file() { path } else { path.join("model.json") };
                    json!({ "name": m.name, "sha256": hash(&[file])?, "quantisation": m.quantisation })
                }
            };
            Ok((model, pack, rates))
        }
        Err((json, sha256)) => {
            aside.stage("making the model");
            let load = async |run: &Run<'_>| Model::random(&json, args.quant, &device, run).await;
            let model = with_run(aside, cancel, load).await?;
            let pack = json!({ "name": "random", "sha256": sha256, "quantisation": { "all": args.quant.as_str() } });
            Ok((model, pack, rates))
        }
    }
}

/// A `config.json`, and the hash of its bytes.
fn configuration(path: &Path) -> Result<(Value, String)> {
    let place = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::new(Code::NoModel, format!("can't be read: {e}"))).at(&place)?;
    let json = serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(Code::PackInvalid, format!("this is no JSON: {e}")))
        .at(&place)?;
    Ok((json, hex(Sha256::digest(&bytes).as_slice())))
}

fn name(path: &Path) -> String {
    let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    folder.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// The hash of all files of a folder, in the order of their names.
fn hash_folder(path: &Path) -> Result<String> {
    let entries = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    files.sort();
    hash(&files)
}

fn hash(files: &[std::path::PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let mut from = std::fs::File::open(file).map_err(|e| unreadable(file, &e))?;
        std::io::copy(&mut from, &mut hash).map_err(|e| unreadable(file, &e))?;
    }
    Ok(hex(hash.finalize().as_slice()))
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::new(Code::NoModel, format!("can't be read: {e}")).at(path.display())
}

/// The most memory that this process ever had, where the system says so.
fn process_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The same for people.
fn text(report: &Value) -> String {
    let device = &report["device"];
    let limit = |name: &str| device["limits"][name].as_f64().unwrap_or(0.0) / 1e9;
    let mut out = format!(
        "{} on {}: {:.1} GFLOP/s, {:.1} GB/s\n\n",
        report["pack"]["name"].as_str().unwrap_or_default(),
        device["name"].as_str().unwrap_or_default(),
        limit("flops_per_second"),
        limit("bytes_per_second"),
    );
    out.push_str(&format!(
        "{:<16}{:>12}{:>12}{:>12}{:>12}{:>12}\n",
        "stage", "median ms", "min ms", "floor ms", "GFLOP", "MB"
    ));
    for s in report["stages"].as_array().into_iter().flatten() {
        let cell = |v: &Value, unit: f64, digits: usize| format!("{:>12.digits$}", v.as_f64().unwrap_or(0.0) / unit);
        let name = s["name"].as_str().unwrap_or_default();
        let (median, min) = (cell(&s["ms"]["median"], 1.0, 2), cell(&s["ms"]["min"], 1.0, 2));
        let floor = cell(&s["floor_ms"], 1.0, 2);
        let (flops, bytes) = (cell(&s["flops"], 1e9, 3), cell(&s["bytes"], 1e6, 2));
        out.push_str(&format!("{name:<16}{median}{min}{floor}{flops}{bytes}\n"));
    }
    out.push('\n');
    for part in ["decode", "second_question", "memory"] {
        if !report[part].is_null() {
            out.push_str(&format!("{part}: {}\n", report[part]));
        }
    }
    out
}
