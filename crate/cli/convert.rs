//! `convert`: a checkpoint becomes a model pack.

use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;

use super::args::Convert;
use super::info::megabytes;
use super::out::Aside;
use crate::error::{Code, Error, Result};
use crate::pack::convert::{Options, Stage, convert as to_pack};
use crate::tensor::plan::Cancel;

/// Converts, and says what came out.
pub(super) fn convert(args: &Convert, cancel: &Cancel) -> Result<ExitCode> {
    let empty = || std::fs::read_dir(&args.output).is_ok_and(|mut inside| inside.next().is_none());
    if args.output.exists() && !args.force && !empty() {
        let e =
            Error::new(Code::Usage, "there is something at this place already; --force replaces it if it is a pack");
        return Err(e.at(args.output.display()));
    }
    let mut options = Options { bases: args.bases.clone(), cancel: cancel.clone(), ..Options::default() };
    for text in &args.quant {
        options.quant(text)?;
    }
    let aside = Aside::new(args.quiet);
    let kib = |bytes: u64| usize::try_from(bytes / 1024).unwrap_or(usize::MAX);
    let shown = Cell::new(None);
    let manifest = to_pack(Path::new(&args.source), &args.output, &options, &|p| {
        if shown.replace(Some(p.stage)) != Some(p.stage) {
            aside.stage(match p.stage {
                Stage::Fetch => "fetching",
                Stage::Write => "converting",
            });
        }
        aside.progress(kib(p.done), kib(p.total));
    })?;
    aside.clear();
    aside.remark(&format!("{}: {} in {}", manifest.name, megabytes(manifest.total), args.output.display()));
    Ok(ExitCode::SUCCESS)
}
