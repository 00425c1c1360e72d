//! `convert`: a checkpoint becomes a model pack.

use std::path::Path;
use std::process::ExitCode;

use super::args::Convert;
use super::out::Aside;
use crate::error::{Code, Error, Result};
use crate::pack::convert::{Options, convert as convert_pack};
use crate::tensor::plan::Cancel;

/// Converts, and says what came out.
pub(super) fn convert(args: &Convert, cancel: &Cancel) -> Result<ExitCode> {
    if args.output.exists() && !args.force {
        let e = Error::new(Code::Usage, "there is something in this place already; --force replaces a pack");
        return Err(e.at(args.output.display()));
    }
    let mut options = Options { bases: args.bases.clone(), cancel: cancel.clone(), ..Options::default() };
    for quant in &args.quant {
        options.quant(quant)?;
    }
    // The pack is called as its folder is: that is the name under which it is found later.
    options.name = args.output.file_name().map(|n| n.to_string_lossy().into_owned());
    let aside = Aside::new(args.quiet);
    aside.stage("converting");
    let manifest = convert_pack(Path::new(&args.source), &args.output, &options, &|p| {
        aside.progress(p.done as usize, p.total as usize);
    })?;
    aside.clear();
    aside.remark(&format!(
        "{}: {} in {} files",
        args.output.display(),
        super::info::megabytes(manifest.total),
        manifest.files.len()
    ));
    Ok(ExitCode::SUCCESS)
}
