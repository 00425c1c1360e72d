//! The command line `groma`. Only this room prints.

/// Runs the command line and says how it went.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
