//! The command line `groma`. Only this room prints.
//!
//! Data goes to stdout, everything else to stderr; progress is shown on a terminal only. Must never know a tensor: it
//! asks the session and tells what it hears.

mod args;
mod bench;
mod convert;
mod engine;
mod failure;
mod info;
mod out;
mod overlay;
mod photo;
mod questions;
mod regions;
pub mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use crate::error::Result;
use crate::session::Task;
use crate::tensor::plan::Cancel;

/// Runs the command line and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors end here with status 2, help and version with 0.
    let cli = Cli::parse();
    compute_here();
    let cancel = Cancel::default();
    // What can't be stopped half-way is left to the system's own way: Ctrl-C leaves at once.
    if !matches!(cli.command, Command::Verify(_) | Command::Info(_) | Command::Completions { .. }) {
        stop_on_interrupt(&cancel);
    }
    match pollster::block_on(run(cli.command, &cancel)) {
        Ok(code) => code,
        Err(e) => failure::report(&e),
    }
}

/// This thread becomes one of those that compute: handing every product to another thread and waiting for it costs a third
/// of a token's time.
fn compute_here() {
    // It fails where the system gives no threads; then whoever computes first fails, with a message of its own.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

/// The first Ctrl-C asks to stop, so that what was said is finished properly; the second leaves at once.
fn stop_on_interrupt(cancel: &Cancel) {
    let cancel = cancel.clone();
    let installed = ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(failure::INTERRUPTED.into());
        }
        cancel.cancel();
        out::tell("\nstopping (once more leaves at once)");
    });
    if installed.is_err() {
        // Without a handler the system's own applies: Ctrl-C leaves at once.
        out::tell("warning: Ctrl-C can't be caught here");
    }
}

async fn run(command: Command, cancel: &Cancel) -> Result<ExitCode> {
    match command {
        Command::Ask(a) => {
            let refer = a.boxes.iter().map(|b| b.0).collect();
            let task = Task::Ask { question: a.question, grounded: !a.plain, refer };
            questions::answer(&a.photo, task, &a.say, cancel).await
        }
        Command::Detect(a) => questions::answer(&a.photo, Task::Detect(a.label), &a.say, cancel).await,
        Command::Locate(a) => questions::answer(&a.photo, Task::Locate(a.phrase), &a.say, cancel).await,
        Command::Caption(a) => {
            let task = Task::Caption { bbox: a.bbox.0, long: a.long };
            questions::answer(&a.photo, task, &a.say, cancel).await
        }
        Command::Describe(a) => questions::answer(&a.photo, Task::Describe, &a.say, cancel).await,
        Command::Regions(a) => regions::list(&a, cancel).await,
        Command::Convert(a) => convert::convert(&a, cancel),
        Command::Verify(a) => {
            let device = engine::device(a.device, args::NumericsChoice::Exact).await?;
            let telling = match (a.json, a.quiet) {
                (true, _) => verify::Telling::Json,
                (false, true) => verify::Telling::Failures,
                (false, false) => verify::Telling::All,
            };
            let options = verify::Options { bases: a.bases, dump: a.dump, telling };
            let summary = verify::verify(&a.dir, &device, &options)?;
            Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { failure::FAILED.into() })
        }
        Command::Bench(a) => bench::bench(&a, cancel).await,
        Command::Info(a) => info::info(&a).await,
        Command::Completions { shell } => {
            // Into memory first: a pipe that closes early is no failure of ours.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "groma", &mut script);
            out::Out::stdout().say(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
