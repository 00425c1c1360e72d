//! Checkpoints from the Hugging Face hub, through the `hf-hub` crate and its cache; `HF_ENDPOINT`, `HF_HOME` and the
//! stored token are honoured.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};

use crate::error::{At, Code, Error, Result};
use crate::tensor::plan::Cancel;

/// Files of a checkpoint, besides the weights.
const FILES: [&str; 6] =
    ["config.json", "tokenizer.json", "tokenizer.model", "added_tokens.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// Downloads the checkpoint `owner/name` into the hub's cache and gives the folder.
///
/// # Errors
/// `no-model` where `source` is neither a folder nor a repository, `part-missing` where a file can't be fetched.
pub(crate) fn fetch(source: &Path, cancel: &Cancel) -> Result<PathBuf> {
    let id = source.to_string_lossy().into_owned();
    let no_model = |what: &str| Error::new(Code::NoModel, what.to_owned()).expected("a folder, or owner/name on the hub", &id);
    if !is_repository(&id) {
        return Err(no_model("no such folder"));
    }
    let failed = |what: &str, e: &ApiError| Error::new(Code::PartMissing, format!("can't fetch {what} from the hub: {e}")).at(&id);
    let repo = ApiBuilder::from_env().with_progress(false).build().map_err(|e| failed("anything", &e))?.model(id.clone());
    let listed = repo.info().map_err(|e| Error::new(Code::NoModel, format!("no such folder, and not on the hub: {e}")).at(&id))?;
    let names: Vec<String> = listed.siblings.into_iter().map(|s| s.rfilename).collect();
    // One form of the weights is enough.
    let suffix = if names.iter().any(|n| n.ends_with(".safetensors")) { ".safetensors" } else { ".bin" };
    let weights = |n: &str| n.ends_with(suffix) && (n.starts_with("model") || n.starts_with("pytorch_model"));
    let mut folder = None;
    for name in names.iter().filter(|n| !n.contains('/') && (FILES.contains(&n.as_str()) || weights(n))) {
        if cancel.is_cancelled() {
            return Err(Error::aborted());
        }
        let path = repo.get(name).map_err(|e| failed(name, &e))?;
        if name == "config.json" {
            folder = path.parent().map(Path::to_owned);
        }
    }
    folder.ok_or_else(|| no_model("the repository has no config.json")).at(&id)
}

/// `owner/name` of the letters that the hub allows.
fn is_repository(id: &str) -> bool {
    let word = |w: &str| !w.is_empty() && !w.starts_with('.') && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    id.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_no_repositories() {
        assert!(is_repository("FoundationVision/groma-7b-finetune"));
        for path in ["groma", "./groma", "../a", "/a/b", "a/b/c", "a b/c"] {
            assert!(!is_repository(path), "{path}");
        }
    }
}
