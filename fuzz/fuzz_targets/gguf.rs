//! See `tests/native/hostile/targets.rs`.
#![no_main]

#[path = "../../tests/native/hostile/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::gguf(data));
