//! Tests of [`super`].

use super::*;
use crate::groma::golden::Golden;

const FOLDERS: [&str; 3] = ["tiny", "tiny2", "tiny3"];

fn tokens(folder: &str) -> Tokens {
    Tokens::from_bytes(&Golden::open(folder).file("tokenizer.json")).unwrap()
}

/// The same file read by `tokenizers` itself, which treats special tokens as such wherever they are.
fn whole(folder: &str) -> Tokenizer {
    Tokenizer::from_bytes(Golden::open(folder).file("tokenizer.json")).unwrap()
}

struct Random(u64);

impl Random {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn words(&mut self, words: &[&str]) -> String {
        (0..self.next(7)).map(|_| words[self.next(words.len())]).collect()
    }
}

const MARKS: [&str; 12] = [
    "<p>",
    "</p>",
    "<roi>",
    "</roi>",
    "<r0>",
    "<r12>",
    "<image>",
    "[grounding]",
    "</s>",
    "<s>",
    "<|im_end|>",
    "<refer_feat>",
];
const PLAIN: [&str; 18] = [
    "a",
    " dog",
    "the",
    " ",
    "  ",
    "\n",
    "\t",
    "2024",
    "é",
    "日本",
    "👍🏽",
    ".",
    "don't",
    "<",
    ">",
    "ASSISTANT:",
    "roi",
    "\u{a0}",
];

#[test]
fn texts_equal_the_goldens() {
    for folder in FOLDERS {
        let (g, t) = (Golden::open(folder), tokens(folder));
        for case in g.json("tokenizer_cases.json")["encode"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(t.encode(text).unwrap(), want, "{folder}: {text:?}");
            assert_eq!(t.decode(&want).unwrap(), case["back"].as_str().unwrap(), "{folder}: {text:?}");
        }
        for case in g.cases() {
            let mut ids: Vec<u32> = serde_json::from_value(case["expect"]["tokens"].clone()).unwrap();
            let stops = case.get("eos_token_id").unwrap_or(&g.book()["eos_token_id"]).as_array().unwrap().clone();
            ids.pop_if(|last| stops.contains(&Value::from(*last)));
            assert_eq!(t.decode(&ids).unwrap(), case["expect"]["text"].as_str().unwrap(), "{folder}/{}", case["id"]);
        }
    }
}

#[test]
fn ids_are_those_of_the_joined_text_where_nobody_types_a_token() {
    for folder in FOLDERS {
        let (t, whole) = (tokens(folder), whole(folder));
        let mut random = Random(11);
        for _ in 0..3000 {
            let parts: Vec<Part> = (0..random.next(6))
                .map(|_| match random.next(3) {
                    0 => Part::typed(random.words(&PLAIN)),
                    1 => Part::template(random.words(&PLAIN)),
                    _ => Part::template(random.words(&MARKS)),
                })
                .collect();
            let joined: String = parts.iter().map(Part::text).collect();
            let count = |text: &str| t.added.iter().map(|a| text.matches(&a.content).count()).sum::<usize>();
            if count(&joined)
                != parts.iter().filter(|p| matches!(p, Part::Template(_))).map(|p| count(p.text())).sum::<usize>()
            {
                continue; // a `<` and a `roi>` met at a border
            }
            let want = whole.encode(joined.as_str(), true).unwrap();
            assert_eq!(t.encode_template(&parts).unwrap(), want.get_ids(), "{folder}: {parts:?}");
        }
    }
}

#[test]
fn what_a_person_types_is_only_text() {
    for folder in FOLDERS {
        let t = tokens(folder);
        let mut random = Random(5);
        for _ in 0..2000 {
            let mixed = [MARKS.as_slice(), PLAIN.as_slice()].concat();
            let (a, b) = (random.words(&mixed), random.words(&mixed));
            let parts =
                [Part::template("Locate <p>"), Part::typed(a.clone()), Part::template("</p> in"), Part::typed(b)];
            let ids = t.encode_template(&parts).unwrap();
            let marks: Vec<u32> = ids[t.prefix.len()..].iter().copied().filter(|id| t.by_id.contains_key(id)).collect();
            assert_eq!(marks, [t.special("<p>").unwrap(), t.special("</p>").unwrap()], "{folder}: {parts:?}");
        }
        let typed = t.encode_template(&[Part::typed("x</p><roi><r0></roi>")]).unwrap();
        assert_eq!(t.decode(&typed[t.prefix.len()..]).unwrap(), "x</p><roi><r0></roi>");
        // A token may be torn over parts of a template, never completed by a person.
        let torn = t.encode_template(&[Part::template("<r"), Part::template("oi>")]).unwrap();
        assert_eq!(torn.last().copied(), t.special("<roi>"));
        let completed = t.encode_template(&[Part::template("<r"), Part::typed("oi>")]).unwrap();
        assert_ne!(completed.last().copied(), t.special("<roi>"));
    }
}

#[test]
fn a_vocabulary_that_spells_its_special_tokens_is_defused() {
    // As converted SentencePiece models have it: `<s>` is a merge away.
    let json = r#"{"version":"1.0","added_tokens":[{"id":3,"content":"<s>","special":true}],
        "model":{"type":"BPE","vocab":{"<":0,"s":1,">":2,"<s>":3,"s>":4},"merges":["s >","< s>"]}}"#;
    let t = Tokens::from_bytes(json.as_bytes()).unwrap();
    assert_eq!(t.encode_template(&[Part::template("<s>"), Part::typed("<s>")]).unwrap(), [3, 0, 1, 2]);
}

#[test]
fn streamed_text_never_tears_a_character() {
    for folder in FOLDERS {
        let t = tokens(folder);
        let mut random = Random(3);
        for _ in 0..500 {
            let parts = [Part::typed(random.words(&PLAIN)), Part::template("<p>"), Part::typed(random.words(&PLAIN))];
            let ids = t.encode_template(&parts).unwrap();
            let (mut stream, mut text) = (t.stream(), String::new());
            let ids = &ids[t.prefix.len()..];
            for &id in ids {
                for piece in stream.push(id).unwrap() {
                    match piece {
                        Piece::Text(s) => {
                            assert!(!s.contains(char::REPLACEMENT_CHARACTER), "{folder}: {parts:?}");
                            text.push_str(&s);
                        }
                        other => assert_eq!(other, Piece::PhraseOpen),
                    }
                }
            }
            assert!(stream.finish().unwrap().is_empty());
            let want = t.decode(ids).unwrap().replace("<p>", "");
            assert_eq!(text.trim(), want.trim(), "{folder}");
        }
    }
}

#[test]
fn torn_characters_come_out_as_replacements() {
    let t = tokens("tiny2");
    let first = t.encode("日").unwrap().into_iter().find(|id| t.raw(*id).unwrap().starts_with("<0x")).unwrap();
    let mut stream = t.stream();
    assert!(stream.push(first).unwrap().is_empty());
    let p = t.special("<p>").unwrap();
    assert_eq!(stream.push(p).unwrap(), [Piece::Text("\u{fffd}".into()), Piece::PhraseOpen]);
    assert!(stream.push(first).unwrap().is_empty());
    assert_eq!(stream.finish().unwrap(), [Piece::Text("\u{fffd}".into())]);
}

#[test]
fn answers_become_parts_with_the_same_ids() {
    for folder in FOLDERS {
        let t = tokens(folder);
        let text = "The <p>red dog</p><roi><r0><r2></roi> is near, say 日本.";
        let ids = t.encode(text).unwrap();
        let parts = t.parts(&ids).unwrap();
        assert!(parts.contains(&Part::template("</p><roi><r0><r2></roi>")), "{folder}: {parts:?}");
        assert_eq!(t.encode_template(&parts).unwrap()[t.prefix.len()..], ids, "{folder}: {parts:?}");
    }
}

#[test]
fn special_tokens_are_looked_up() {
    let t = tokens("tiny2");
    assert_eq!(t.index_ids().len(), 100);
    assert_eq!(t.is_index(t.index_id(7).unwrap()), Some(7));
    assert_eq!(t.is_index(t.special("<p>").unwrap()), None);
    assert_eq!((t.is_index(4_000_000), t.index_id(100), t.special("<nothing>")), (None, None, None));
    assert_eq!(t.need("<nothing>").unwrap_err().to_string(), "tokenizer.json: the token <nothing> is missing");
    assert_eq!(t.vocabulary(), 430 + 114);
    let word = t.encode("a dog").unwrap()[1];
    assert!(t.piece(word).unwrap().starts_with(' '));
    for bad in [b"".as_slice(), b"{}", b"{\"model\":{}}", b"[]", b"{\"added_tokens\":3}", b"\xff"] {
        assert_eq!(Tokens::from_bytes(bad).unwrap_err().code, Code::PackInvalid, "{bad:?}");
    }
}

/// The crate that builds them would panic, which ends a browser's worker.
#[test]
fn merges_without_a_result_are_refused() {
    let model = |prefix: &str, merge: Value| {
        let vocab = serde_json::json!({ "a": 0, "b": 1, "ab": 2, "##b": 3, "long": 4 });
        let model = serde_json::json!({ "type": "BPE", "vocab": vocab, "merges": [merge], "continuing_subword_prefix": prefix });
        Tokens::from_bytes(serde_json::json!({ "version": "1.0", "model": model }).to_string().as_bytes())
    };
    for whole in [serde_json::json!(["a", "b"]), serde_json::json!("a b")] {
        assert!(model("", whole).is_ok());
    }
    assert!(model("##", serde_json::json!(["a", "##b"])).is_ok());
    for (prefix, merge) in [("##", ["a", "b"]), ("", ["long", "ab"]), ("", ["b", "a"]), ("aaaaaaaa", ["a", "b"])] {
        let e = model(prefix, serde_json::json!(merge)).unwrap_err();
        assert!(e.code == Code::PackInvalid && e.to_string().contains("makes no token"), "{merge:?}: {e}");
    }
}
