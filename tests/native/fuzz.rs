//! What strangers may hand us: packs, checkpoints, photos, tokenizers, answers. Each gives the right thing or an error,
//! soon, and without the memory that it claims.
//!
//! `GROMA_FUZZ_SECONDS` says how long each target is fuzzed (15 by default), `GROMA_FUZZ_SEED` by which numbers. The same
//! targets are run by cargo-fuzz from the folder `fuzz`.

#[path = "hostile/images.rs"]
mod images;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/mutate.rs"]
mod mutate;
#[path = "hostile/packs.rs"]
mod packs;
#[path = "hostile/runs.rs"]
mod runs;
#[path = "hostile/targets.rs"]
mod targets;
