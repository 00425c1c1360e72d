//! `groma verify`: runs a folder of the golden form through the normal plans, with taps that only copy, and judges every
//! stage tensor and every discrete result.

mod golden;
mod host_ops;
mod model;
mod ops;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::golden::{Golden, Numbers};
use super::out::{Out, save, tell};
use crate::error::{At, Code, Error, Result};
use crate::groma::grounding::{self, Kind, Parser, Piece};
use crate::tensor::Device;

/// What a run of `verify` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Comparisons that passed.
    pub passed: usize,
    /// Comparisons that failed, missing tensors and cases included.
    pub failed: usize,
}

/// What is told of the comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Telling {
    /// A line each.
    #[default]
    All,
    /// A line for each that fails.
    Failures,
    /// One JSON object: `{"passed", "failed", "comparisons": [{"name", "pass", "text"}]}`.
    Json,
}

/// How to verify.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the bases are, if not in the usual place.
    pub bases: Option<PathBuf>,
    /// Where to write what was computed, in the candidate form of golden/README.md 12.
    pub dump: Option<PathBuf>,
    /// What is told.
    pub telling: Telling,
}

/// Verifies a folder, or every folder below a parent (and its `grammar.json`).
///
/// # Errors
/// Unreadable folders; `no-model` where a base is absent. Comparisons that fail are counted, not errors.
pub fn verify(dir: &Path, device: &Device, options: &Options) -> Result<Summary> {
    let mut journal = Journal { telling: options.telling, out: Out::stdout(), all: Vec::new(), unsaid: Ok(()) };
    let (summary, failure) = if dir.join("cases.json").is_file() {
        match folder(dir, device, options.bases.as_deref(), options.dump.as_deref(), &mut journal) {
            Ok(summary) => (summary, None),
            Err(e) => (journal.unjudged(dir, &e), Some(e)),
        }
    } else {
        parent(dir, device, options, &mut journal)?
    };
    let Journal { mut out, all, unsaid, .. } = journal;
    if options.telling == Telling::Json {
        let Summary { passed, failed } = summary;
        out.json(&json!({ "passed": passed, "failed": failed, "comparisons": all }))?;
    }
    unsaid?;
    failure.map_or(Ok(summary), Err)
}

/// Tells the comparisons.
struct Journal {
    telling: Telling,
    out: Out,
    all: Vec<Value>,
    /// Why lines could not be said, where they could not: the verdict must not depend on it, but the status does.
    unsaid: Result<()>,
}

impl Journal {
    fn comparison(&mut self, pass: bool, name: &str, text: &str) {
        match self.telling {
            Telling::Json => self.all.push(json!({ "name": name, "pass": pass, "text": text })),
            Telling::Failures if pass => (),
            _ => self.say(&format!("{} {name}: {text}\n", if pass { "ok  " } else { "FAIL" })),
        }
    }

    /// A folder that can't be judged counts as one failure.
    fn unjudged(&mut self, dir: &Path, why: &Error) -> Summary {
        // for people it is told on stderr
        if self.telling == Telling::Json {
            self.comparison(false, &dir.display().to_string(), &why.to_string());
        }
        Summary { passed: 0, failed: 1 }
    }

    fn summary(&mut self, name: &str, Summary { passed, failed }: Summary) {
        if self.telling != Telling::Json {
            self.say(&format!("{name}: {passed} passed, {failed} failed\n"));
        }
    }

    fn say(&mut self, text: &str) {
        let said = self.out.say(text);
        self.unsaid = std::mem::replace(&mut self.unsaid, Ok(())).and(said);
    }
}

/// The folders below `dir` together, and the last absent base, for which some of them could not be judged.
fn parent(dir: &Path, device: &Device, options: &Options, journal: &mut Journal) -> Result<(Summary, Option<Error>)> {
    let mut all = Summary::default();
    let mut folders: Vec<_> = std::fs::read_dir(dir)
        .map_err(|e| Error::new(Code::Io, format!("can't be read: {e}")).at(dir.display()))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| ["cases.json", "expected.safetensors"].iter().any(|f| p.join(f).is_file()))
        .collect();
    folders.sort();
    let grammar = dir.join("grammar.json");
    if folders.is_empty() && !grammar.is_file() {
        return Err(Error::new(Code::Usage, "no folder of the golden form").at(dir.display()));
    }
    let mut without = None;
    for path in &folders {
        let out = options.dump.as_ref().map(|d| d.join(path.file_name().unwrap_or_default()));
        let one = folder(path, device, options.bases.as_deref(), out.as_deref(), journal).unwrap_or_else(|e| {
            let one = journal.unjudged(path, &e);
            // an absent base ends the call as an error, after what can be judged; others are failures like any
            let absent = e.code == Code::NoModel;
            tell(&format!("{}{}: {e}", if absent { "" } else { "FAIL " }, path.display()));
            without = if absent { Some(e) } else { without.take() };
            one
        });
        all.passed += one.passed;
        all.failed += one.failed;
    }
    if grammar.is_file() {
        let one = verify_grammar(&grammar, journal)?;
        all.passed += one.passed;
        all.failed += one.failed;
    }
    journal.summary("all folders", all);
    Ok((all, without))
}

fn folder(
    dir: &Path,
    device: &Device,
    bases: Option<&Path>,
    dump: Option<&Path>,
    journal: &mut Journal,
) -> Result<Summary> {
    let golden = Golden::open(dir).at("verify")?;
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut report = Report::new(&golden, name, matches!(device, Device::Gpu(_)), journal);
    let is_ops = golden.cases["cases"].as_array().is_some_and(|c| c.iter().any(|c| c.get("op").is_some()));
    if is_ops {
        ops::run(&mut report, device)?
    } else {
        model::run(&mut report, device, bases)?
    }
    report.missing();
    if let Some(out) = dump {
        report.dump(out)?;
    }
    let Report { name, summary, .. } = report;
    if summary == Summary::default() {
        // nothing failed, but nothing was shown either
        return Err(Error::new(Code::PackInvalid, "the folder holds nothing to compare").at(dir.display()));
    }
    journal.summary(&name, summary);
    Ok(summary)
}

/// Collects and prints comparisons.
struct Report<'a> {
    golden: &'a Golden,
    name: String,
    gpu: bool,
    summary: Summary,
    given: BTreeMap<String, Numbers>,
    results: BTreeMap<String, Map<String, Value>>,
    journal: &'a mut Journal,
}

impl<'a> Report<'a> {
    fn new(golden: &'a Golden, name: String, gpu: bool, journal: &'a mut Journal) -> Self {
        Self {
            golden,
            name,
            gpu,
            summary: Summary::default(),
            given: BTreeMap::new(),
            results: BTreeMap::new(),
            journal,
        }
    }

    fn line(&mut self, pass: bool, name: &str, text: &str) {
        self.journal.comparison(pass, &format!("{}/{name}", self.name), text);
        if pass { self.summary.passed += 1 } else { self.summary.failed += 1 }
    }

    /// A stage tensor. What the goldens do not hold is passed over. `host` marks operations that no device runs.
    fn tensor(&mut self, name: &str, got: &Numbers, host: bool) -> Result<()> {
        if self.golden.manifest["tensors"].get(name).is_none() {
            return Ok(());
        }
        let verdict = self.golden.judge(name, got, self.gpu && !host)?;
        let text = if host { format!("{} (host)", verdict.text) } else { verdict.text };
        self.line(verdict.pass, name, &text);
        self.given.insert(name.to_owned(), got.clone());
        Ok(())
    }

    /// A discrete result of a case that the host finds under every device; its line says so.
    fn host_result(&mut self, case: &Value, key: &str, got: Value) {
        self.judge(case, key, got, if self.gpu { " (host)" } else { "" });
    }

    /// A discrete result of a case.
    fn result(&mut self, case: &Value, key: &str, got: Value) {
        self.judge(case, key, got, "");
    }

    fn judge(&mut self, case: &Value, key: &str, got: Value, by: &str) {
        let id = case["id"].as_str().unwrap_or_default().to_owned();
        if let Some(want) = case["expect"].get(key) {
            let pass = *want == got;
            let text = if pass { "equal".to_owned() } else { format!("{got}, expected {want}") };
            self.line(pass, &format!("{id}.{key}"), &format!("{text}{by}"));
        }
        self.results.entry(id).or_default().insert(key.to_owned(), got);
    }

    /// Every golden tensor and result that nothing was compared with.
    fn missing(&mut self) {
        for name in self.golden.names() {
            if !self.given.contains_key(&name) {
                self.line(false, &name, "missing");
            }
        }
        let cases = self.golden.cases["cases"].as_array().cloned().unwrap_or_default();
        for case in cases {
            let id = case["id"].as_str().unwrap_or_default().to_owned();
            for key in case["expect"].as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default() {
                if !self.results.get(&id).is_some_and(|r| r.contains_key(&key)) {
                    self.line(false, &format!("{id}.{key}"), "missing");
                }
            }
        }
    }

    /// Section 12's candidate form: `dump.safetensors` and `results.json`.
    fn dump(&self, out: &Path) -> Result<()> {
        std::fs::create_dir_all(out).map_err(|e| Error::writing(out, "make the folder", &e))?;
        let mut parts = Vec::new();
        for (name, numbers) in &self.given {
            // in the golden's form, unless it has another number of elements: then that is what the dump shows
            let shape = self.golden.shape(name);
            let fits = shape.iter().product::<usize>() == numbers.values.len();
            let whole = if fits { Numbers { shape, ..numbers.clone() } } else { numbers.clone() };
            let cut = self.golden.cut(name, &whole).unwrap_or(whole);
            let (dtype, bytes): (_, Vec<u8>) = if cut.integers {
                (safetensors::Dtype::I64, cut.values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect())
            } else {
                (safetensors::Dtype::F32, cut.values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect())
            };
            parts.push((name.clone(), dtype, cut.shape, bytes));
        }
        let views = parts
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes);
                view.map(|v| (name.clone(), v)).map_err(|e| Error::internal(format!("{name}: {e}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let tensors = safetensors::serialize(views, None).map_err(|e| Error::internal(format!("the dump: {e}")))?;
        save(&out.join("dump.safetensors"), &tensors)?;
        let keys = ["region_index", "match", "expanded_ids", "tokens", "ids"];
        let kept: BTreeMap<_, Map<String, Value>> = self
            .results
            .iter()
            .map(|(id, r)| {
                (
                    id,
                    r.iter().filter(|(k, _)| keys.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect(),
                )
            })
            .collect();
        let text = serde_json::to_vec(&kept).map_err(|e| Error::internal(format!("the results: {e}")))?;
        save(&out.join("results.json"), &text)
    }
}

/// Section 8.6: tokens of answers and the segments they mean.
fn verify_grammar(path: &Path, journal: &mut Journal) -> Result<Summary> {
    let book = golden::json(path)?;
    if book["cases"].as_array().is_none_or(Vec::is_empty) {
        return Err(Error::new(Code::PackInvalid, "there is nothing to compare").at(path.display()));
    }
    let mut summary = Summary::default();
    for (i, case) in book["cases"].as_array().cloned().unwrap_or_default().iter().enumerate() {
        let regions = usize::try_from(case["num_regions"].as_u64().unwrap_or(0)).unwrap_or(0);
        let mut parser = Parser::new(regions);
        for piece in case["pieces"].as_array().cloned().unwrap_or_default() {
            let text = piece.as_str().unwrap_or_default();
            parser.push(Piece::mark(text).unwrap_or_else(|| Piece::Text(text.to_owned())));
        }
        parser.finish();
        let got: Vec<Value> = parser.segments().iter().map(shown).collect();
        let pass = Value::Array(got.clone()) == case["segments"];
        let text = if pass { "equal".to_owned() } else { format!("{got:?}") };
        journal.comparison(pass, &format!("grammar/{i}"), &text);
        if pass { summary.passed += 1 } else { summary.failed += 1 }
    }
    journal.summary("grammar", summary);
    Ok(summary)
}

fn shown(s: &grounding::Segment) -> Value {
    match s.kind {
        Kind::Text => json!({ "text": s.text }),
        Kind::Phrase => json!({ "phrase": s.text, "regions": s.regions }),
    }
}
