//! The browser's front: the only wasm-bindgen, typed, thin, no model knowledge.
