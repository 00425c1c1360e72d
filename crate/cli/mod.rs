//! The command line `groma`. Only this room prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one room that prints")]

pub mod verify;

/// Runs the command line and says how it went.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let dir = std::env::args().nth(2).unwrap_or_default();
    match verify::verify(std::path::Path::new(&dir), &crate::tensor::Device::cpu(), None, None) {
        Ok(s) if s.failed == 0 => std::process::ExitCode::SUCCESS,
        Ok(_) => std::process::ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::from(2)
        }
    }
}
