//! `groma convert`: a checkpoint of official form, our weights on their bases, or a repository of the Hugging Face hub
//! becomes a pack. Everything streams: a few rows are in memory at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::gguf::SHAPE_KEY;
use super::llama;
use super::manifest::{DECODER, Generation, Manifest, PERCEIVER, PackFile, TOKENIZER};
use super::names;
use super::quantise::{Quant, recode};
use super::source::{Source, matrix};
use super::tensors::{Component, ENCODER, LANGUAGE_MODEL, Role, Wanted, wanted};
use super::write::{Meta, Planned, Staging, gguf_head, padding};
use crate::error::{At, Code, Error, Result};
use crate::tensor::DType;
use crate::tensor::plan::Cancel;

/// Numbers that are recoded at a time.
const CHUNK: usize = 4 << 20;
/// Tokens of the original demo's answers (golden/README.md 9).
const MAX_NEW_TOKENS: u32 = 1024;

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the model is called; the source's name if it is `None`.
    pub name: Option<String>,
    /// Types asked for, the later over the earlier; see [`Options::quant`].
    pub quants: Vec<(Option<Component>, Quant)>,
    /// Where the bases are, if not in the usual place.
    pub bases: Option<PathBuf>,
    /// Whether whoever will load the pack takes its `config.json`: asked before anything is read.
    pub check: Option<fn(&Value) -> Result<()>>,
    /// Stops the conversion; nothing stays.
    pub cancel: Cancel,
}

impl Options {
    /// Takes one `--quant`: `TYPE` for all components, or `COMPONENT=TYPE`.
    ///
    /// # Errors
    /// `usage` for words that are neither.
    pub fn quant(&mut self, text: &str) -> Result<()> {
        let (component, word) = match text.split_once('=') {
            None => (None, text),
            Some((c, word)) => {
                let words = Component::ALL.map(Component::as_str).join(", ");
                let c = Component::parse(c)
                    .ok_or_else(|| Error::new(Code::Usage, "no such component").expected(words, c).at("--quant"))?;
                (Some(c), word)
            }
        };
        let quant = Quant::parse(word).ok_or_else(|| {
            Error::new(Code::Usage, "no such type").expected(Quant::WORDS.join(", "), word).at("--quant")
        })?;
        self.quants.push((component, quant));
        Ok(())
    }

    /// What becomes of a component. Without a word from the user: of groma-s the decoder stays as its base has it, but
    /// for the attention, which LoRA changes; a large model gets a decoder of four bits.
    fn of(&self, component: Component, based: bool) -> Quant {
        let asked = self.quants.iter().rev().find(|(c, _)| c.is_none_or(|c| c == component));
        let q8 = Quant::To(DType::Q8_0);
        let (four, table) = if based { (Quant::Keep, Quant::Keep) } else { (Quant::To(DType::Q4_0), q8) };
        match (asked, component) {
            (Some((_, quant)), _) => *quant,
            (_, Component::Encoder) => q8,
            (_, Component::Attention) => {
                if based {
                    q8
                } else {
                    four
                }
            }
            (_, Component::Mlp) => four,
            (_, Component::Embedding) => table,
            (_, Component::Head) => {
                if based {
                    Quant::To(DType::F16)
                } else {
                    table
                }
            }
            (_, Component::Proposer | Component::RegionEncoder | Component::Bridge) => Quant::To(DType::F16),
        }
    }
}

/// What a conversion is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Files come from the hub.
    Fetch,
    /// Tensors are written.
    Write,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What it is at; a stage begins when the one before is done.
    pub stage: Stage,
    /// The file or tensor at hand, by upstream's name.
    pub item: &'a str,
    /// Bytes fetched or written.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Converts `source` (a folder, or `owner/name` on the hub) to a pack in the folder `out`, which appears when it is
/// whole. A pack that is already there is replaced.
///
/// # Errors
/// What opening the source fails with; `pack-invalid` for missing tensors and wrong shapes, `out-of-storage`, `io`,
/// `aborted`. Nothing half-written stays.
pub fn convert(source: &Path, out: &Path, options: &Options, progress: &dyn Fn(Progress<'_>)) -> Result<Manifest> {
    let dir = if source.exists() { source.to_owned() } else { from_hub(source, options, progress)? };
    let checkpoint = Checkpoint::open_with(&dir, options.bases.as_deref())?;
    options.check.map_or(Ok(()), |check| check(checkpoint.config())).at(dir.display())?;
    let name = options.name.clone().unwrap_or_else(|| name_of(source));
    let jobs = jobs(&checkpoint, options).at(dir.display())?;
    let tokenizer = checkpoint.tokenizer()?;
    let config = checkpoint.config().clone();
    let generation = Generation { eos_token_ids: llama::eos(&config), max_new_tokens: MAX_NEW_TOKENS };
    let mut manifest = Manifest::new(name.clone(), config, generation);
    manifest.licence = licences(&checkpoint);
    manifest.quantisation = quantisation(&jobs);

    let staging = Staging::new(out)?;
    let (decoder, perceiver): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|j| j.decoder);
    let total = decoder.iter().chain(&perceiver).map(|j| j.planned.bytes).sum();
    let mut run = Run { checkpoint: &checkpoint, staging: &staging, options, progress, done: 0, total };
    if let Some(json) = &tokenizer {
        let mut file = staging.file(TOKENIZER);
        file.write(json)?;
        manifest.files.push(file.finish()?);
    }
    let mut meta = llama::general("groma", &name, common_type(&perceiver));
    meta.extend(shapes(&perceiver));
    manifest.files.push(run.write(PERCEIVER, &meta, &perceiver)?);
    if !decoder.is_empty() {
        let mut meta = llama::general("llama", &name, common_type(&decoder));
        meta.extend(llama::hyperparameters(&checkpoint.config));
        meta.extend(llama::tokenizer(&checkpoint.config, tokenizer.as_deref(), checkpoint.base.as_ref())?);
        manifest.files.push(run.write(DECODER, &meta, &decoder)?);
    }
    manifest.total = manifest.files.iter().map(|f| f.size).sum();
    staging.commit(&manifest)?;
    Ok(manifest)
}

#[cfg(feature = "cli")]
fn from_hub(source: &Path, options: &Options, progress: &dyn Fn(Progress<'_>)) -> Result<PathBuf> {
    super::hub::fetch(source, &options.cancel, progress)
}

#[cfg(not(feature = "cli"))]
fn from_hub(source: &Path, _options: &Options, _progress: &dyn Fn(Progress<'_>)) -> Result<PathBuf> {
    Err(Error::new(Code::NoModel, "no such folder").at(source.display()))
}

fn name_of(source: &Path) -> String {
    let whole = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    whole.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
}

/// A tensor to convert.
#[derive(Debug)]
struct Job {
    wanted: Wanted,
    shape: Vec<usize>,
    from: DType,
    planned: Planned,
    decoder: bool,
}

/// What is to be written, after names and shapes are known to be right.
fn jobs(checkpoint: &Checkpoint, options: &Options) -> Result<Vec<Job>> {
    let list = wanted(checkpoint.config())?;
    let has = |group: &str| list.iter().any(|w| w.group == group && checkpoint.info(&w.name).is_some());
    // Without a language model it is what the first training stage leaves: components may not be there yet.
    let whole = has(LANGUAGE_MODEL);
    let mut jobs: Vec<Job> = Vec::new();
    for w in &list {
        let Some(info) = checkpoint.info(&w.name) else {
            if !w.optional && (whole || w.group == ENCODER || has(w.group)) {
                return Err(Error::new(Code::PackInvalid, format!("a tensor of the {} is missing", w.group))
                    .expected(w.shape_text(), "none")
                    .at(&w.name));
            }
            continue;
        };
        if !w.fits(&info.shape) {
            return Err(Error::new(Code::PackInvalid, "the tensor has another shape than the config asks for")
                .expected(w.shape_text(), format!("{:?}", info.shape))
                .at(&w.name)
                .at(checkpoint.file(&w.name).unwrap_or_default()));
        }
        if !checkpoint.names().any(|n| n == w.name) {
            continue; // A head shared by all layers is stored once, and found under every name.
        }
        let (rows, cols) = matrix(&info.shape);
        let quant = options.of(w.component, checkpoint.base.is_some());
        let dtype = target(w.role, rows, cols, info.dtype, quant);
        let bytes = (dtype.row_bytes(cols).at(&w.name)? * rows) as u64;
        let theirs = names::to_llama_cpp(&w.name);
        let shape = if info.shape.len() > 1 { vec![rows, cols] } else { info.shape.clone() };
        let decoder = theirs.is_some();
        let planned = Planned { name: theirs.unwrap_or_else(|| w.name.clone()), shape, dtype, bytes };
        jobs.push(Job { wanted: w.clone(), shape: info.shape, from: info.dtype, planned, decoder });
    }
    Ok(jobs)
}

/// The type in which a tensor is stored.
fn target(role: Role, rows: usize, cols: usize, from: DType, quant: Quant) -> DType {
    let blocks = |d: DType| d.block() > 1;
    match (role, quant) {
        (Role::Vector, _) => DType::F32,
        (Role::Table, _) if rows == 1 => DType::F32,
        (_, Quant::Keep) => from,
        (Role::Table, Quant::To(d)) if blocks(d) => DType::F16,
        (Role::Matrix, Quant::To(d)) if !cols.is_multiple_of(d.block()) => DType::F16,
        (_, Quant::To(d)) => d,
    }
}

/// Shapes of what is more than a matrix.
fn shapes(jobs: &[Job]) -> Vec<(String, Meta)> {
    let shape = |j: &Job| Meta::U32s(j.shape.iter().map(|d| *d as u32).collect());
    jobs.iter().filter(|j| j.shape.len() > 2).map(|j| (format!("{SHAPE_KEY}{}", j.planned.name), shape(j))).collect()
}

/// The type of most bytes.
fn common_type<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> DType {
    let mut bytes: BTreeMap<&str, (u64, DType)> = BTreeMap::new();
    for j in jobs.into_iter().filter(|j| j.wanted.role == Role::Matrix) {
        let numbers = j.shape.iter().product::<usize>() as u64;
        bytes.entry(j.planned.dtype.as_str()).or_insert((0, j.planned.dtype)).0 += numbers;
    }
    bytes.into_values().max_by_key(|(n, _)| *n).map_or(DType::F32, |(_, d)| d)
}

fn quantisation(jobs: &[Job]) -> BTreeMap<String, String> {
    let of = |c: Component| jobs.iter().filter(move |j| j.wanted.component == c);
    let present = Component::ALL.into_iter().filter(|c| of(*c).any(|j| j.wanted.role == Role::Matrix));
    present.map(|c| (c.as_str().into(), common_type(of(c)).as_str().into())).collect()
}

/// Licences of the bases, and the one in the front matter of the model card.
fn licences(checkpoint: &Checkpoint) -> Vec<String> {
    let mut out = checkpoint.licence.clone();
    for card in ["MODEL_CARD.md", "README.md"] {
        let text = std::fs::read_to_string(checkpoint.dir.join(card)).unwrap_or_default();
        let front = text.strip_prefix("---").and_then(|t| t.split_once("\n---")).map_or("", |(front, _)| front);
        let own = front.lines().find_map(|l| l.strip_prefix("license:")).map(|l| l.trim().trim_matches('"').to_owned());
        let new = own.filter(|l| !l.is_empty() && !out.iter().any(|o| o.eq_ignore_ascii_case(l)));
        out.extend(new);
    }
    out
}

struct Run<'a> {
    checkpoint: &'a Checkpoint,
    staging: &'a Staging,
    options: &'a Options,
    progress: &'a dyn Fn(Progress<'_>),
    done: u64,
    total: u64,
}

impl Run<'_> {
    fn write(&mut self, name: &str, metadata: &[(String, Meta)], jobs: &[Job]) -> Result<PackFile> {
        let mut file = self.staging.file(name);
        let planned: Vec<Planned> = jobs.iter().map(|j| j.planned.clone()).collect();
        file.write(&gguf_head(metadata, &planned).at(name)?)?;
        for job in jobs {
            let (rows, cols) = matrix(&job.shape);
            let step = (CHUNK / cols.max(1)).max(1);
            for first in (0..rows).step_by(step) {
                if self.options.cancel.is_cancelled() {
                    return Err(Error::aborted());
                }
                let bytes = self.checkpoint.read_rows(&job.wanted.name, first..(first + step).min(rows))?;
                let bytes = recode(job.from, job.planned.dtype, bytes).at(&job.wanted.name)?;
                file.write(&bytes)?;
                self.done += bytes.len() as u64;
                let (item, done, total) = (job.wanted.name.as_str(), self.done, self.total);
                (self.progress)(Progress { stage: Stage::Write, item, done, total });
            }
            file.write(&[0; 32][..padding(job.planned.bytes)])?;
        }
        file.finish()
    }
}
