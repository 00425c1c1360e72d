//! The linked shaders: their text is what browsers cache compiled kernels by, so a change of it is seen and meant.

use std::fmt::Write as _;
use std::path::Path;

use groma::tensor::gpu::kernels::{self, Kind};
use groma::tensor::gpu::variants;
use sha2::{Digest, Sha256};

/// One line a permutation: name, workgroup, bindings, the beginning of its text's hash.
fn list() -> String {
    let mut text = String::new();
    for p in kernels::all() {
        let kinds: String = p
            .bindings
            .iter()
            .map(|(_, k)| match k {
                Kind::Uniform => 'u',
                Kind::Read => 'r',
                Kind::Write => 'w',
            })
            .collect();
        let hash: String = Sha256::digest(p.wgsl).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let [x, y, z] = p.workgroup;
        writeln!(text, "{} {x}x{y}x{z} {kinds} {hash}", p.name).expect("strings take everything");
    }
    text
}

#[test]
fn linked_text_is_as_it_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/kernels/shaders.txt");
    let now = list();
    if std::env::var_os("GROMA_BLESS").is_some() {
        std::fs::write(&path, &now).expect("the snapshot can be written");
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<&str> = now.lines().filter(|l| !was.lines().any(|w| w == *l)).collect();
    assert!(now == was, "shaders changed; GROMA_BLESS=1 accepts it:\n{}", changed.join("\n"));
}

/// The browser's tests compile every kernel: they read the texts that this leaves.
#[test]
fn texts_are_left_for_the_browser() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache");
    std::fs::create_dir_all(&dir).expect("the folder can be made");
    let of = |p: &&kernels::Permutation| serde_json::json!({ "name": p.name, "wgsl": p.wgsl, "shared": p.shared });
    let all: Vec<_> = kernels::all().iter().map(of).collect();
    std::fs::write(dir.join("kernels.json"), serde_json::json!(all).to_string()).expect("it can be written");
}

#[test]
fn permutations_stay_within_default_limits_but_wide_ones() {
    for p in kernels::all() {
        let storage = p.bindings.iter().filter(|(_, k)| *k != Kind::Uniform).count();
        assert!(storage <= 8, "{} binds {storage} storage buffers", p.name);
        assert!(p.workgroup.iter().product::<u32>() <= 256, "{} has more than 256 threads", p.name);
        let most = if p.name.ends_with("_wide") { variants::WIDE } else { 16 << 10 };
        assert!(p.shared <= most, "{} shares {} bytes in a workgroup", p.name, p.shared);
    }
}

#[test]
fn texts_hold_what_every_browser_takes() {
    for p in kernels::all() {
        for word in ["enable ", "subgroup", "sin(", "cos(", "340282346638528859811704183484516925440"] {
            assert!(!p.wgsl.contains(word), "{} contains {word:?}", p.name);
        }
    }
}
