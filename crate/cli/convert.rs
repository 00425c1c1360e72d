//! `convert`: a checkpoint becomes a model pack.

use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::Convert;
use super::info::megabytes;
use super::out::{Aside, Out};
use crate::error::{Code, Error, Result};
use crate::groma::config::Config;
use crate::pack::convert::{Options, Stage, convert as to_pack};
use crate::tensor::plan::Cancel;

/// Converts, and says what came out.
pub(super) fn convert(args: &Convert, cancel: &Cancel) -> Result<ExitCode> {
    let empty = || std::fs::read_dir(&args.pack).is_ok_and(|mut inside| inside.next().is_none());
    if args.pack.exists() && !args.force && !empty() {
        let e =
            Error::new(Code::Usage, "there is something at this place already; --force replaces it if it is a pack");
        return Err(e.at(args.pack.display()));
    }
    let check = |config: &Value| Config::from_json(config).map(|_| ());
    let mut options =
        Options { bases: args.bases.clone(), check: Some(check), cancel: cancel.clone(), ..Options::default() };
    for text in &args.quant {
        options.quant(text)?;
    }
    let aside = Aside::new(args.output.quiet);
    let kib = |bytes: u64| usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
    let shown = Cell::new(None);
    let manifest = to_pack(Path::new(&args.source), &args.pack, &options, &|p| {
        if shown.replace(Some(p.stage)) != Some(p.stage) {
            aside.stage(match p.stage {
                Stage::Fetch => "fetching",
                Stage::Write => "converting",
            });
        }
        aside.progress(kib(p.done), kib(p.total));
    })?;
    aside.clear();
    if args.output.json {
        let files = manifest.files.iter().map(|f| json!({ "name": f.name, "size": f.size, "sha256": f.sha256 }));
        Out::stdout().json(&json!({
            "name": manifest.name, "place": args.pack.display().to_string(), "bytes": manifest.total,
            "licence": manifest.licence, "quantisation": manifest.quantisation, "files": files.collect::<Vec<_>>(),
        }))?;
    } else {
        aside.remark(&format!("{}: {} in {}", manifest.name, megabytes(manifest.total), args.pack.display()));
    }
    Ok(ExitCode::SUCCESS)
}
