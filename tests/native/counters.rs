//! What a token of groma-s costs a GPU, in counts that do not depend on its speed (PERFORMANCE's "must").

#![expect(clippy::print_stdout, reason = "it prints what it counted")]

use std::path::PathBuf;

use groma::groma::decoder::Ending;
use groma::groma::prompt::Row;
use groma::groma::sample::Sampler;
use groma::pack::Pack;
use groma::pack::convert::{Options as Convert, convert};
use groma::session::{Model, Sources, Text};
use groma::tensor::Device;
use groma::tensor::gpu::{Gpu, Options};
use groma::tensor::plan::Run;
use pollster::block_on;

/// Tokens that warm up and are not counted.
const FIRST: usize = 8;
/// Tokens in all.
const ALL: usize = 64;

#[test]
fn gpu_decoding_groma_s_stays_within_its_counts() {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/groma-s");
    let dir = tempfile::tempdir().expect("a folder for the pack");
    let out = dir.path().join("pack");
    convert(&source, &out, &Convert::default(), &|_| ()).expect("the bases are there (npm run bases)");
    let gpu = block_on(Gpu::create(Options::from_env())).expect("a Vulkan adapter (Mesa's lavapipe will do)");
    let pack = Pack::open(&out).expect("a pack");
    let model = block_on(Model::load(&pack, &Device::Gpu(gpu.clone()), &Run::default())).expect("it loads");
    let layers = model.config().llm.num_hidden_layers as u64;
    let mut text = Text::new(&model).expect("a decoder");
    let rows: Vec<Row> = (1000..1012).map(Row::Token).collect();
    block_on(text.read(&rows, ALL, Sources::default(), Ending::Greedy, &Run::default())).expect("it reads");
    let mut greedy = Sampler::new(0.0, 0).expect("a sampler");
    let (mut said, mut before) = (0, None);
    let run = Run::default();
    block_on(text.generate(&mut greedy, ALL, &run, &mut |_| {
        said += 1;
        if said == FIRST {
            before = Some(gpu.counters());
        }
        Ok(true)
    }))
    .expect("it speaks");
    let c = gpu.counters().since(&before.expect("more than the first tokens came"));
    let tokens = (ALL - FIRST) as u64;
    assert_eq!(said, ALL, "stop tokens are not looked at here");
    assert!(c.dispatches <= tokens * (5 * layers + 8), "at most five dispatches a layer: {c:?}");
    assert_eq!((c.buffers_created, c.bind_groups_created), (0, 0), "decoding makes nothing: {c:?}");
    assert!(c.readbacks * 8 <= tokens, "one look in eight tokens: {c:?}");
    assert!(c.bytes_up <= 16 * tokens && c.bytes_down <= 4 * tokens, "bytes a token: {c:?}");
    println!("{tokens} tokens, {layers} layers: {c:?}");
}
