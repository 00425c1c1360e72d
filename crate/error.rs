//! The one error of the house: a stable code for programs, a sentence for people, and where it happened.
//!
//! Must never know a device, a file format or a front: they all put their failures into this form.

use std::fmt;
use std::io;
use std::path::Path;

/// What went wrong, in a word that programs may branch on. The words are part of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// No adapter that could run the kernels.
    NoWebgpu,
    /// The device was lost while in use (not destroyed by us).
    DeviceLost,
    /// Memory of the device or of the machine is exhausted.
    OutOfMemory,
    /// The place where weights are kept is full.
    OutOfStorage,
    /// A part of a model pack could not be fetched or found.
    PartMissing,
    /// A part of a model pack is not what its hash says.
    PartCorrupt,
    /// A model file or its description is broken, foreign or inconsistent.
    PackInvalid,
    /// No model at the given place.
    NoModel,
    /// The picture can't be decoded.
    ImageUnreadable,
    /// The picture has more pixels than can be handled.
    ImageTooLarge,
    /// A box has no area or lies outside the picture.
    BoxOutside,
    /// There is no question.
    QuestionEmpty,
    /// The prompt does not fit the model's context.
    PromptTooLong,
    /// Stopped on request.
    Aborted,
    /// The session or photo was closed before.
    Closed,
    /// A file can't be read or written.
    Io,
    /// The call itself is wrong (an unknown option, contradictory arguments).
    Usage,
    /// A mistake of ours.
    Internal,
}

impl Code {
    /// The stable, kebab-case spelling: `part-corrupt`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NoWebgpu => "no-webgpu",
            Code::DeviceLost => "device-lost",
            Code::OutOfMemory => "out-of-memory",
            Code::OutOfStorage => "out-of-storage",
            Code::PartMissing => "part-missing",
            Code::PartCorrupt => "part-corrupt",
            Code::PackInvalid => "pack-invalid",
            Code::NoModel => "no-model",
            Code::ImageUnreadable => "image-unreadable",
            Code::ImageTooLarge => "image-too-large",
            Code::BoxOutside => "box-outside",
            Code::QuestionEmpty => "question-empty",
            Code::PromptTooLong => "prompt-too-long",
            Code::Aborted => "aborted",
            Code::Closed => "closed",
            Code::Io => "io",
            Code::Usage => "usage",
            Code::Internal => "internal",
        }
    }
}

/// An error: code, sentence, and optionally what was expected, what was got and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The stable code.
    pub code: Code,
    /// One sentence for people, without a full stop.
    pub message: String,
    /// File, tensor, stage or field, from the outermost to the innermost.
    pub place: Vec<String>,
    /// Expected and got, where that is the form of the failure.
    pub mismatch: Option<(String, String)>,
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: Vec::new(), mismatch: None }
    }

    /// A mistake of ours; the message says which invariant broke.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Something on a disk that could not be written: `out-of-storage` where there is no room (the disk, a quota, or a
    /// limit on a file's size), else `io`. `what` follows "can't": `write`.
    #[must_use]
    pub fn writing(path: &Path, what: &str, e: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let full = matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        let code = if full { Code::OutOfStorage } else { Code::Io };
        Self::new(code, format!("can't {what}: {e}")).at(path.display())
    }

    /// Stopped on request.
    #[must_use]
    pub fn aborted() -> Self {
        Self::new(Code::Aborted, "stopped on request")
    }

    /// What was expected and what was got instead.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        self.mismatch = Some((expected.to_string(), got.to_string()));
        self
    }

    /// Adds where it happened; call it from the inside out.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place.insert(0, place.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some((expected, got)) = &self.mismatch {
            write!(f, ": expected {expected}, got {got}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Self::internal(format!("candle: {e}"))
    }
}

/// Adds a place to the error of a result.
pub trait At<T> {
    /// See [`Error::at`].
    ///
    /// # Errors
    /// The result's own, with the place added.
    fn at(self, place: impl fmt::Display) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.at(place))
    }
}
