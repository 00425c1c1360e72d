//! How failures are told: one sentence, a way on, and an exit status that scripts can branch on.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::error::{Code, Error};

/// The work failed.
pub(super) const FAILED: u8 = 1;
/// The call was wrong.
pub(super) const WRONG_CALL: u8 = 2;
/// There is no model.
pub(super) const NO_MODEL: u8 = 3;
/// There is no device.
pub(super) const NO_DEVICE: u8 = 4;
/// Ctrl-C.
pub(super) const INTERRUPTED: u8 = 130;

/// The exit status of an error.
#[must_use]
pub(super) fn status(code: Code) -> u8 {
    match code {
        Code::Usage | Code::BoxOutside | Code::QuestionEmpty | Code::PromptTooLong => WRONG_CALL,
        Code::NoModel => NO_MODEL,
        Code::NoWebgpu => NO_DEVICE,
        Code::Aborted => INTERRUPTED,
        _ => FAILED,
    }
}

/// What a person can do about it.
fn way_on(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::NoModel => {
            "name one with --model or GROMA_MODEL, or make the embedded one in the project's folder: \
             groma convert models/groma-s -o dist/models/groma-s"
        }
        Code::NoWebgpu => "--device cpu runs on the processor",
        Code::DeviceLost => "try again, or run on the processor with --device cpu",
        Code::OutOfMemory => "a pack with smaller types needs less (groma convert --quant q4_0)",
        Code::OutOfStorage => "make room there, or write somewhere else",
        Code::PartMissing | Code::PartCorrupt => "copy, fetch or convert it again",
        Code::ImageUnreadable => "save the photo as PNG, JPEG or WebP",
        Code::ImageTooLarge => "make the photo smaller; the model itself looks at far fewer pixels",
        Code::BoxOutside => "boxes are x0,y0,x1,y1 in pixels of the photo as it is seen",
        Code::PromptTooLong => "ask a shorter question",
        Code::Internal => "this is a mistake of groma's own: please report it",
        _ => return None,
    })
}

/// The text of an error: what went wrong, then what to do. The last line is the one that helps.
#[must_use]
pub(super) fn text(e: &Error, colour: bool) -> String {
    let (red, plain) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    if e.code == Code::Aborted {
        return "interrupted".to_owned();
    }
    let mut text = format!("{red}error[{}]:{plain} {e}", e.code.as_str());
    if let Some(hint) = way_on(e.code) {
        text.push_str(&format!("\n  {hint}"));
    }
    text
}

/// Tells an error on stderr and gives its exit status.
pub(super) fn report(e: &Error) -> ExitCode {
    super::out::tell(&text(e, super::out::colours(std::io::stderr().is_terminal())));
    status(e.code).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_status() {
        for (code, want) in [
            (Code::ImageUnreadable, 1),
            (Code::ImageTooLarge, 1),
            (Code::PackInvalid, 1),
            (Code::OutOfStorage, 1),
            (Code::DeviceLost, 1),
            (Code::Io, 1),
            (Code::Internal, 1),
            (Code::Usage, 2),
            (Code::BoxOutside, 2),
            (Code::QuestionEmpty, 2),
            (Code::PromptTooLong, 2),
            (Code::NoModel, 3),
            (Code::NoWebgpu, 4),
            (Code::Aborted, 130),
        ] {
            assert_eq!(status(code), want, "{code:?}");
        }
    }

    #[test]
    fn errors_say_what_and_what_next() {
        let e = Error::new(Code::NoWebgpu, "no adapter was found");
        assert_eq!(text(&e, false), "error[no-webgpu]: no adapter was found\n  --device cpu runs on the processor");
        assert!(text(&e, true).starts_with("\x1b[1;31merror[no-webgpu]:\x1b[0m "));
        assert_eq!(text(&Error::aborted(), false), "interrupted");
    }
}
