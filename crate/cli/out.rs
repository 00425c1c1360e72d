//! Where words go: stdout for what was asked for, stderr for the rest, colours and progress for terminals only.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Result};

/// Whether colours may be used on a stream that is a terminal or not.
#[must_use]
pub(super) fn colours(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// What the user asked for. A reader that has gone away (`| head`) is no failure: the rest is not said.
#[derive(Debug)]
pub(super) struct Out {
    gone: bool,
    /// Whether to colour.
    pub colour: bool,
}

impl Out {
    /// To stdout.
    #[must_use]
    pub(super) fn stdout() -> Self {
        Self { gone: false, colour: colours(io::stdout().is_terminal()) }
    }

    /// Says something at once, without a line's end of its own.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        if self.gone {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other.map_err(|e| Error::writing(Path::new("stdout"), "write", &e)),
        }
    }

    /// Says a JSON object.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal(e.to_string()))?;
        self.say(&(text + "\n"))
    }

    /// A text in the colour of a region's number.
    #[must_use]
    pub(super) fn numbered(&self, number: usize, text: &str) -> String {
        let [r, g, b] = super::overlay::colour(number);
        if self.colour { format!("\x1b[38;2;{r};{g};{b}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Says a line on stderr. Where nobody listens any more there is nobody to tell that either.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Saves a file, which appears whole or not at all.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path)).map_err(|e| {
        // What is half-written helps nobody; that it can't be removed either changes nothing.
        let _ = std::fs::remove_file(&aside);
        Error::writing(path, "write", &e)
    })
}

/// Remarks and progress on stderr.
#[derive(Debug)]
pub(super) struct Aside {
    quiet: bool,
    bar: ProgressBar,
}

impl Aside {
    /// Nothing at all where `quiet`.
    #[must_use]
    pub(super) fn new(quiet: bool) -> Self {
        let shown = !quiet && io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {percent}%") {
            bar.set_style(style);
        }
        if shown {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { quiet, bar }
    }

    /// Begins a stretch of work.
    pub(super) fn stage(&self, name: &'static str) {
        self.bar.set_message(name);
        self.bar.set_position(0);
    }

    /// So much of it is done.
    pub(super) fn progress(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
    }

    /// Takes the bar away, before words appear.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// A remark that is not part of the result.
    pub(super) fn remark(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| tell(text));
        }
    }
}
