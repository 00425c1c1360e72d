//! `convert`: a checkpoint becomes a model pack.

use std::process::ExitCode;

use super::args::Convert;
use crate::error::{Code, Error, Result};
use crate::tensor::plan::Cancel;

/// Converts, and says what came out.
pub fn convert(args: &Convert, _cancel: &Cancel) -> Result<ExitCode> {
    Err(Error::new(Code::Internal, "conversion lands with the pack room").at(&args.source))
}
