//! Checkpoints from the Hugging Face hub, through the `hf-hub` crate and its cache; `HF_ENDPOINT`, `HF_HOME` and the
//! stored token are honoured.
//!
//! Files are fetched by the commit that the hub names first, so that those of two versions never meet. What the hub says
//! of their sizes and hashes is compared; what has arrived of a cut file stays in the cache, where the next call goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::Value;

use super::convert::{Progress, Stage};
use super::manifest::plain_name;
use super::weights::Blob;
use crate::error::{At, Code, Error, Result};
use crate::tensor::plan::Cancel;

/// Files of a checkpoint, besides the weights.
const FILES: [&str; 9] = [
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "bases.json",
    "tokenizer_additions.json",
    "README.md",
];

/// How often a download looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// A file of a repository, as the hub lists it.
#[derive(Debug, PartialEq)]
struct Listed {
    name: String,
    size: Option<u64>,
    /// Of files in large file storage, as all weights are.
    sha256: Option<String>,
}

/// Downloads the checkpoint `owner/name` into the hub's cache and gives the folder. Without a connection, what the cache
/// holds is taken.
///
/// # Errors
/// `no-model` where `source` is neither a folder nor a repository, `part-missing` where a file can't be fetched,
/// `part-corrupt` where it is not what the hub says, `out-of-storage`, `aborted`.
pub(crate) fn fetch(source: &Path, cancel: &Cancel, progress: &dyn Fn(Progress<'_>)) -> Result<PathBuf> {
    let id = source.to_string_lossy().into_owned();
    if !is_repository(&id) {
        return Err(Error::new(Code::NoModel, "no such folder").expected("a folder, or owner/name on the hub", &id));
    }
    let api = ApiBuilder::from_env().with_progress(false).build();
    let api = api.map_err(|e| Error::new(Code::PartMissing, format!("can't speak to the hub: {e}")).at(&id))?;
    let cache = Cache::from_env();
    let (commit, files) = match list(&api, &id)? {
        Answer::Files(commit, files) => (commit, files),
        Answer::Unreachable(why) => {
            let cached = cache.model(id.clone()).get("config.json").and_then(|p| Some(p.parent()?.to_owned()));
            return cached
                .ok_or_else(|| Error::new(Code::PartMissing, format!("the hub can't be reached: {why}")).at(&id));
        }
    };
    let files = wanted(files);
    if !files.iter().any(|f| f.name == "config.json") {
        return Err(Error::new(Code::NoModel, "the repository has no config.json").at(&id));
    }
    let repo = Repo::with_revision(id.clone(), RepoType::Model, commit.clone());
    let mut done = 0;
    let mut total: u64 = files.iter().filter_map(|f| f.size).sum();
    let mut folder = None;
    for file in &files {
        if cancel.is_cancelled() {
            return Err(Error::aborted());
        }
        let path = match cache.repo(repo.clone()).get(&file.name) {
            Some(path) => path,
            None => {
                let before = done;
                let path = download(&api, &repo, &file.name, cancel, &mut |bytes| {
                    done += bytes;
                    total = total.max(done);
                    progress(Progress { stage: Stage::Fetch, item: &file.name, done, total });
                })
                .at(&id)?;
                done = before;
                check(&path, file).at(&id)?;
                path
            }
        };
        done += file.size.unwrap_or(0);
        total = total.max(done);
        progress(Progress { stage: Stage::Fetch, item: &file.name, done, total });
        if file.name == "config.json" {
            folder = path.parent().map(Path::to_owned);
        }
    }
    // For later calls without a connection.
    cache.model(id.clone()).create_ref(&commit).map_err(|e| Error::writing(cache.path(), "write", &e))?;
    folder.ok_or_else(|| Error::internal("a path without a folder")).at(&id)
}

/// What the hub says of a repository.
enum Answer {
    /// Its commit and its files.
    Files(String, Vec<Listed>),
    /// Nothing.
    Unreachable(String),
}

fn list(api: &Api, id: &str) -> Result<Answer> {
    let response = match api.model(id.to_owned()).info_request().query("blobs", "true").call() {
        Ok(response) => response,
        Err(e) => {
            let why = e.to_string();
            return match e.into_response().map(|r| r.status()) {
                None => Ok(Answer::Unreachable(why)),
                Some(401 | 403) => Err(Error::new(
                    Code::NoModel,
                    format!("the hub does not give this repository out; it may not exist, or want a token: {why}"),
                )
                .at(id)),
                Some(404) => {
                    Err(Error::new(Code::NoModel, format!("no such folder, and not on the hub: {why}")).at(id))
                }
                Some(_) => Err(Error::new(Code::PartMissing, format!("the hub fails: {why}")).at(id)),
            };
        }
    };
    let foreign =
        |why: String| Error::new(Code::PartMissing, format!("the hub's answer is not understood: {why}")).at(id);
    let text = response.into_string().map_err(|e| foreign(e.to_string()))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| foreign(e.to_string()))?;
    let (commit, files) = listed(&json).ok_or_else(|| foreign("it names no commit and files".into()))?;
    Ok(Answer::Files(commit, files))
}

/// Commit and files of the hub's answer. The commit becomes part of a path, so it must look like one.
fn listed(json: &Value) -> Option<(String, Vec<Listed>)> {
    let commit = json["sha"].as_str().filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let file = |v: &Value| {
        let sha256 = v["lfs"]["sha256"].as_str().map(str::to_ascii_lowercase);
        Some(Listed { name: v["rfilename"].as_str()?.to_owned(), size: v["size"].as_u64(), sha256 })
    };
    Some((commit.to_owned(), json["siblings"].as_array()?.iter().filter_map(file).collect()))
}

/// The files that a conversion reads: descriptions first, then one form of the weights.
fn wanted(files: Vec<Listed>) -> Vec<Listed> {
    let weights = |n: &str, stem: &str, end: &str| n.starts_with(stem) && n.ends_with(end);
    let safe = files.iter().any(|f| weights(&f.name, "model", ".safetensors"));
    let (stem, end) = if safe { ("model", ".safetensors") } else { ("pytorch_model", ".bin") };
    let is_wanted = |n: &str| plain_name(n) && (FILES.contains(&n) || weights(n, stem, end));
    let mut out: Vec<Listed> = files.into_iter().filter(|f| is_wanted(&f.name)).collect();
    out.sort_by_key(|f| !FILES.contains(&f.name.as_str()));
    out
}

/// Tells of bytes that arrive.
struct Told(Sender<u64>);

impl hf_hub::api::Progress for Told {
    fn init(&mut self, _size: usize, _name: &str) {}

    fn update(&mut self, size: usize) {
        // Whoever asked for the file may have gone.
        let _ = self.0.send(size as u64);
    }

    fn finish(&mut self) {}
}

/// Fetches a file. On a thread of its own: `hf-hub` can't be stopped, but it can be left alone.
fn download(api: &Api, repo: &Repo, name: &str, cancel: &Cancel, on: &mut dyn FnMut(u64)) -> Result<PathBuf> {
    let (tell, told) = mpsc::channel();
    let (repo, file) = (api.repo(repo.clone()), name.to_owned());
    let worker = thread::spawn(move || repo.download_with_progress(&file, Told(tell)));
    loop {
        match told.recv_timeout(LOOK) {
            Ok(bytes) => on(bytes),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if cancel.is_cancelled() {
            return Err(Error::aborted());
        }
    }
    let failed =
        |why: &str| Error::new(Code::PartMissing, format!("can't fetch the file from the hub: {why}")).at(name);
    match worker.join() {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(ApiError::IoError(e))) => Err(match Error::writing(Cache::from_env().path(), "write", &e) {
            full if full.code == Code::OutOfStorage => full,
            _ => failed(&format!("{e}; what has arrived is kept, the next call goes on there")),
        }),
        Ok(Err(e)) => Err(failed(&e.to_string())),
        Err(_) => Err(failed("its answer is not understood")),
    }
}

/// Compares a fetched file with what the hub says of it; one that differs is removed.
fn check(path: &Path, file: &Listed) -> Result<()> {
    let blob = Blob::open(path)?;
    let wrong = |what: &str, want: String, got: String| {
        // A link to the file proper: neither may be taken for the file again.
        let _ = path.canonicalize().and_then(std::fs::remove_file);
        let _ = std::fs::remove_file(path);
        Err(Error::new(Code::PartCorrupt, format!("the fetched file has another {what}, and was removed"))
            .expected(want, got)
            .at(&file.name))
    };
    if let Some(size) = file.size.filter(|s| *s != blob.len) {
        return wrong("size", size.to_string(), blob.len.to_string());
    }
    if let Some(want) = &file.sha256 {
        let got = blob.sha256()?;
        if got != *want {
            return wrong("SHA-256", want.clone(), got);
        }
    }
    Ok(())
}

/// `owner/name` of the letters that the hub allows.
fn is_repository(id: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty() && !w.starts_with('.') && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    id.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn folders_are_no_repositories() {
        assert!(is_repository("FoundationVision/groma-7b-finetune"));
        for path in ["groma", "./groma", "../a", "/a/b", "a/b/c", "a b/c"] {
            assert!(!is_repository(path), "{path}");
        }
    }

    #[test]
    fn one_form_of_the_weights_is_enough() {
        let pick = |names: &[&str]| -> Vec<String> {
            let files = names.iter().map(|n| Listed { name: (*n).into(), size: None, sha256: None });
            wanted(files.collect()).into_iter().map(|f| f.name).collect()
        };
        assert_eq!(
            pick(&[
                "model-1.safetensors",
                "pytorch_model.bin",
                "config.json",
                "x/model.safetensors",
                "adapter.safetensors"
            ]),
            ["config.json", "model-1.safetensors"]
        );
        assert_eq!(pick(&["adapter.safetensors", "pytorch_model.bin"]), ["pytorch_model.bin"]);
        assert_eq!(pick(&["model/../../x.safetensors", "..", "optimizer.bin"]), [""; 0]);
    }

    #[test]
    fn a_commit_is_no_path() {
        assert_eq!(listed(&json!({"sha": "../..", "siblings": []})), None);
        assert_eq!(listed(&json!({"sha": "ab12", "siblings": []})), Some(("ab12".into(), vec![])));
        assert_eq!(listed(&json!([])), None);
    }
}
