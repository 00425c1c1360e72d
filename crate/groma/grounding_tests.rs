//! Tests of [`super`].

use super::*;
use crate::groma::golden::Golden;

/// What the specification's own parser gives, ported line by line: it sees the whole answer at once.
fn parse_whole(pieces: &[String], num_regions: usize) -> Vec<(Kind, String, Vec<usize>)> {
    let index = |t: &str| -> Option<usize> {
        let digits = t.strip_prefix("<r")?.strip_suffix('>')?;
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().unwrap_or(usize::MAX))
    };
    let strip = |t: &str| t.trim_matches(is_space).to_owned();
    let at = |i: usize| pieces.get(i).map_or("", String::as_str);
    let mut out = Vec::new();
    let (mut text, mut phrase) = (String::new(), false);
    let flush = |text: &mut String, out: &mut Vec<_>| {
        if !strip(text).is_empty() {
            out.push((Kind::Text, strip(text), vec![]));
        }
        text.clear();
    };
    let mut i = 0;
    while i < pieces.len() {
        let t = at(i);
        if t == "<p>" {
            flush(&mut text, &mut out);
            phrase = true;
        } else if t == "</p>" || t == "<roi>" {
            let name = if phrase { strip(&text) } else { String::new() };
            if phrase {
                text.clear();
            } else {
                flush(&mut text, &mut out);
            }
            phrase = false;
            if t == "</p>" && at(i + 1) == "<roi>" {
                i += 1;
            } else if t == "</p>" {
                if !name.is_empty() {
                    out.push((Kind::Phrase, name, vec![]));
                }
                i += 1;
                continue;
            }
            let mut found = Vec::new();
            while let Some(k) = index(at(i + 1)) {
                found.push(k);
                i += 1;
            }
            if at(i + 1) == "</roi>" {
                i += 1;
            }
            found.retain(|k| *k < num_regions);
            if !name.is_empty() || !found.is_empty() {
                out.push((Kind::Phrase, name, found));
            }
        } else if NOT_TEXT.contains(&t) || t == "</roi>" || index(t).is_some() {
        } else {
            text.push_str(t);
        }
        i += 1;
    }
    flush(&mut text, &mut out);
    out
}

fn piece(t: &str) -> Piece {
    Piece::mark(t).unwrap_or_else(|| Piece::Text(t.to_owned()))
}

/// Parses piece by piece and checks on the way what events promise.
fn parse(pieces: &[String], num_regions: usize) -> Vec<(Kind, String, Vec<usize>)> {
    let mut parser = Parser::new(num_regions);
    let mut seen: Vec<Event> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let events: Vec<Event> = {
        let mut all: Vec<Event> = pieces.iter().flat_map(|t| parser.push(piece(t))).collect();
        all.extend(parser.finish());
        all
    };
    for e in events {
        assert!(e.index <= seen.len(), "segments come in order");
        if e.index == seen.len() {
            assert!(seen.last().is_none_or(|s| s.closed), "a segment begins when the one before is closed");
            seen.push(e.clone());
            texts.push(String::new());
        } else {
            assert!(e.index + 1 == seen.len() && !seen[e.index].closed, "a closed segment never changes");
            seen[e.index] = e.clone();
        }
        texts[e.index].push_str(&e.delta);
        assert_eq!(texts[e.index], e.text, "the deltas are the text");
        assert!(!e.text.starts_with(is_space) && !e.text.ends_with(is_space));
    }
    assert!(seen.iter().all(|s| s.closed));
    let as_segments: Vec<Segment> = seen
        .into_iter()
        .map(|Event { index, kind, text, closed, regions, .. }| Segment { index, kind, text, regions, closed })
        .collect();
    assert_eq!(parser.segments(), as_segments);
    as_segments.into_iter().map(|s| (s.kind, s.text, s.regions)).collect()
}

#[test]
fn grammar_equals_the_goldens() {
    let book = Golden::open("").json("grammar.json");
    let cases = book["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for (n, case) in cases.iter().enumerate() {
        let pieces: Vec<String> = serde_json::from_value(case["pieces"].clone()).unwrap();
        let num_regions = case["num_regions"].as_u64().unwrap() as usize;
        let want: Vec<(Kind, String, Vec<usize>)> = case["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| match s["phrase"].as_str() {
                Some(p) => (Kind::Phrase, p.to_owned(), serde_json::from_value(s["regions"].clone()).unwrap()),
                None => (Kind::Text, s["text"].as_str().unwrap().to_owned(), vec![]),
            })
            .collect();
        assert_eq!(parse(&pieces, num_regions), want, "case {n}: {pieces:?}");
        assert_eq!(parse_whole(&pieces, num_regions), want, "case {n}: the port differs");
    }
}

#[test]
fn any_stream_of_tokens_parses_as_specified() {
    const WORDS: [&str; 24] = [
        "<p>",
        "</p>",
        "<roi>",
        "</roi>",
        "<r0>",
        "<r1>",
        "<r4>",
        "<r5>",
        "<r99>",
        "[PAD]",
        "</s>",
        "<image>",
        "[grounding]",
        "a",
        " dog",
        " ",
        "",
        "\n",
        ".",
        "\u{1f}",
        "é",
        " x ",
        "<",
        "<p>",
    ];
    let mut state = 7_u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for round in 0..60_000 {
        let pieces: Vec<String> = (0..next(14)).map(|_| WORDS[next(WORDS.len())].to_owned()).collect();
        assert_eq!(parse(&pieces, 5), parse_whole(&pieces, 5), "round {round}: {pieces:?}");
    }
}

#[test]
fn events_stream_as_the_tokens_come() {
    let mut parser = Parser::new(8);
    let mut log = Vec::new();
    for t in ["Two", " dogs", " ", "<p>", " a", " dog", "</p>", "<roi>", "<r3>", "<r9>", "<r7>", "</roi>", "."] {
        log.push(parser.push(piece(t)));
    }
    log.push(parser.finish());
    let short = |e: &Event| {
        format!(
            "{}{}{:?} {:?}{}",
            e.index,
            if e.kind == Kind::Text { 't' } else { 'p' },
            e.delta,
            e.regions,
            if e.closed { " closed" } else { "" }
        )
    };
    let log: Vec<String> = log.iter().map(|events| events.iter().map(short).collect::<Vec<_>>().join("; ")).collect();
    assert_eq!(
        log,
        [
            "0t\"Two\" []",
            "0t\" dogs\" []",
            "",
            "0t\"\" [] closed",
            "1p\"a\" []",
            "1p\" dog\" []",
            "",
            "",
            "1p\"\" [3]",
            "",
            "1p\"\" [3, 7]",
            "1p\"\" [3, 7] closed",
            "2t\".\" []",
            "2t\"\" [] closed",
        ]
    );
    assert_eq!(join(parser.segments()), "Two dogs a dog.");
    assert_eq!(join_numbered(parser.segments()), "Two dogs a dog [3, 7].");
}

#[test]
fn bare_lists_and_text_join() {
    let mut parser = Parser::new(8);
    for t in ["<roi>", "<r1>", "<r2>", "</roi>", "<roi>", "<r3>", "</roi>", " ok", "<p>", ")"] {
        parser.push(piece(t));
    }
    parser.finish();
    assert_eq!(join(parser.segments()), "ok)");
    assert_eq!(join_numbered(parser.segments()), "[1, 2] [3] ok)");
    assert_eq!(parser.segments().last().unwrap().kind, Kind::Text, "an open phrase turns out to be text");
}
