//! Errors on their way to JavaScript.

use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::error::{Code, Error};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** What every call throws. */
export interface Thrown {
  /** The stable code, e.g. "part-corrupt". */
  reason: string;
  message: string;
  details: { place: string[]; expected?: string; got?: string };
}
"#;

#[wasm_bindgen]
extern "C" {
    /// `{ reason, message, details }`.
    #[wasm_bindgen(typescript_type = "Thrown")]
    #[derive(Debug)]
    pub type Thrown;
}

#[derive(Serialize)]
struct Plain<'a> {
    reason: &'a str,
    message: String,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    place: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    got: Option<&'a str>,
}

/// An error in the form that crosses.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn thrown(e: Error) -> Thrown {
    let plain = Plain {
        reason: e.code.as_str(),
        message: e.to_string(),
        details: Details {
            place: &e.place,
            expected: e.mismatch.as_ref().map(|(expected, _)| expected.as_str()),
            got: e.mismatch.as_ref().map(|(_, got)| got.as_str()),
        },
    };
    let value = serde_wasm_bindgen::to_value(&plain).unwrap_or_else(|_| JsValue::from(plain.message));
    value.unchecked_into()
}

/// What JavaScript threw, as one of ours: its own `{ reason, message }` where it has that form.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn caught(value: JsValue) -> Error {
    let text = |key: &str| js_sys::Reflect::get(&value, &JsValue::from(key)).ok().and_then(|v| v.as_string());
    let message = text("message").unwrap_or_else(|| format!("{value:?}"));
    let code = match text("reason").as_deref() {
        Some("pack-invalid") => Code::PackInvalid,
        Some("part-missing") => Code::PartMissing,
        _ => Code::Io,
    };
    Error::new(code, message)
}
