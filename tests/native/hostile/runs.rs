//! The targets under our own mutator, for a while each.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "who fuzzes for long wants to see how far, and which input"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use groma::pack::convert::{Options, convert};
use serde_json::{Value, json};

use super::memory::measured;
use super::mutate::{self, Random};
use super::targets;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// What a run may hold, and how long one input may take.
struct Bounds {
    mib: usize,
    time: Duration,
}

/// Runs a target on mutated seeds until a share of the time is over. An input that fails is kept.
fn fuzz(
    name: &str,
    share: f64,
    bounds: &Bounds,
    mut input: impl FnMut(&mut Random) -> Vec<u8>,
    target: impl Fn(&[u8]),
) {
    let seed = number("GROMA_FUZZ_SEED", 1);
    let mut random = Random::new(seed);
    let time = Duration::from_secs_f64(number("GROMA_FUZZ_SECONDS", 15) as f64 * share);
    let start = Instant::now();
    let mut runs = 0u64;
    while start.elapsed() < time {
        let data = input(&mut random);
        let (result, bytes, took) = measured(|| catch_unwind(AssertUnwindSafe(|| target(&data))));
        runs += 1;
        let bad = result.is_err() || bytes > bounds.mib << 20 || took > bounds.time;
        if bad {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{runs}.bin"));
            fs::write(&kept, &data).unwrap();
            let at = kept.display();
            eprintln!("{name}: GROMA_FUZZ_SEED={seed}, run {runs}, {} MiB, {took:?}; the input is {at}", bytes >> 20);
        }
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!bad, "{name}: an input takes too much");
    }
    assert!(runs > 20, "{name}: only {runs} runs");
    println!("{name}: {runs} runs");
}

/// A mutated seed, once in a while as it is.
fn one_of(seeds: Vec<Vec<u8>>) -> impl FnMut(&mut Random) -> Vec<u8> {
    move |random| {
        let mut data = random.pick(&seeds).clone();
        if random.below(50) > 0 {
            mutate::bytes(random, &mut data, &seeds);
        }
        data
    }
}

#[test]
fn packs_and_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = convert(&root("tests/golden/tiny"), &dir.path().join("out"), &Options::default(), &|_| ()).unwrap();
    let heads: Vec<Vec<u8>> = ["decoder.gguf.000", "perceiver.gguf.000"]
        .iter()
        .map(|n| {
            let mut bytes = fs::read(dir.path().join("out").join(n)).unwrap();
            let head = groma::pack::GgufHead::parse(&bytes, bytes.len() as u64).unwrap();
            bytes.truncate(head.tensors[0].range.start as usize);
            bytes
        })
        .collect();
    let little = Bounds { mib: 64, time: Duration::from_secs(2) };
    // A head alone is cut behind its description: every tensor must be refused or lie in what little follows.
    fuzz("gguf", 0.3, &little, one_of(heads.clone()), targets::gguf);

    let mut small = serde_json::to_value(&manifest).unwrap();
    small["files"].as_array_mut().unwrap().retain(|f| f["name"] != "tokenizer.json");
    let sum: u64 = small["files"].as_array().unwrap().iter().map(|f| f["size"].as_u64().unwrap()).sum();
    small["total"] = json!(sum);
    fuzz(
        "manifest",
        0.2,
        &little,
        |random| {
            let mut json = small.clone();
            mutate::document(random, &mut json);
            let mut data = json.to_string().into_bytes();
            data.push(0);
            data.extend(random.pick(&heads));
            data
        },
        targets::manifest,
    );
    let config: Value = serde_json::from_slice(&fs::read(root("tests/golden/tiny2/config.json")).unwrap()).unwrap();
    fuzz(
        "configuration",
        0.1,
        &little,
        |random| {
            let mut json = config.clone();
            mutate::document(random, &mut json);
            json.to_string().into_bytes()
        },
        targets::configuration,
    );

    let folder = dir.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let f16 = |name: &str, shape: &[usize], at: usize| {
        let bytes = shape.iter().product::<usize>() * 2;
        (name.to_owned(), json!({"dtype": "F16", "shape": shape, "data_offsets": [at, at + bytes]}))
    };
    let stem = "llm.model.layers.0.self_attn.q_proj";
    let header = Value::Object(serde_json::Map::from_iter([
        f16(&format!("{stem}.weight"), &[64, 8], 0),
        f16(&format!("{stem}.lora_A.weight"), &[2, 8], 1024),
        f16(&format!("{stem}.lora_B.weight"), &[64, 2], 1056),
        f16("img_txt_bridge.0.bias", &[4], 1312),
    ]));
    fuzz(
        "safetensors",
        0.2,
        &little,
        |random| {
            let mut json = header.clone();
            let both = random.below(3);
            if both != 1 {
                mutate::document(random, &mut json);
            }
            let text = json.to_string();
            let mut data = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[7; 1320]].concat();
            if both == 1 {
                mutate::bytes(random, &mut data, &[text.into_bytes()]);
            }
            data
        },
        |data| targets::checkpoint(&folder, "model.safetensors", data),
    );
    let pytorch = ["fixtures/legacy.bin", "fixtures/wide.bin", "pack_pytorch/pytorch_model-00001-of-00002.bin"];
    let seeds = pytorch.iter().map(|p| fs::read(root("tests/native").join(p)).unwrap()).collect();
    // candle's reader allocates what a text's length says, up to 4 GiB, before it finds the file too short.
    let much = Bounds { mib: 5 << 10, time: Duration::from_secs(5) };
    fuzz("pytorch", 0.2, &much, one_of(seeds), |data| targets::checkpoint(&folder, "pytorch_model.bin", data));
}

#[test]
fn photos() {
    let mut seeds = vec![fs::read(root("tests/golden/tiny/photo_A.png")).unwrap()];
    let mut names: Vec<_> = fs::read_dir(root("tests/native/fixtures")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let pictures = names.iter().filter(|p| p.extension().is_some_and(|e| e == "png" || e == "jpg" || e == "webp"));
    seeds.extend(pictures.map(|p| fs::read(p).unwrap()));
    // As much as the largest photo that is taken: 100 megapixels of 16 bits and four channels, turned.
    let bounds = Bounds { mib: 2 << 10, time: Duration::from_secs(20) };
    let mut input = one_of(seeds);
    fuzz(
        "image",
        1.0,
        &bounds,
        |random| {
            let mut data = input(random);
            if data.starts_with(b"\x89PNG") && random.below(4) > 0 {
                mend(&mut data);
            }
            data
        },
        targets::image,
    );
}

/// Gives every chunk of a PNG its right checksum again, so that decoders look further.
fn mend(png: &mut [u8]) {
    let mut at = 8;
    while let Some(len) = png.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let end = at + 8 + len;
        if end + 4 > png.len() {
            return;
        }
        let sum = !png[at + 4..end].iter().fold(u32::MAX, |crc, b| {
            (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
        });
        png[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn answers() {
    let bounds = Bounds { mib: 16, time: Duration::from_secs(1) };
    fuzz("grounding", 1.0, &bounds, |random| random.bytes(300), targets::grounding);
}

#[test]
fn prompts_and_tokenizers() {
    let bounds = Bounds { mib: 64, time: Duration::from_secs(5) };
    fuzz("typed", 0.5, &bounds, |random| random.bytes(120), targets::typed);
    let seeds: Vec<Value> = ["tiny", "tiny2"]
        .iter()
        .map(|f| {
            serde_json::from_slice(&fs::read(root("tests/golden").join(f).join("tokenizer.json")).unwrap()).unwrap()
        })
        .collect();
    fuzz(
        "tokenizer",
        0.5,
        &bounds,
        |random| {
            let mut json = random.pick(&seeds).clone();
            // The vocabulary is most of the file, and not what breaks readers: the rest gets its share.
            if random.below(3) == 0 {
                mutate::document(random, &mut json);
            } else {
                let keys = ["normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"];
                let key = *random.pick(&keys);
                mutate::document(random, &mut json[key]);
            }
            json.to_string().into_bytes()
        },
        targets::tokenizer,
    );
}
