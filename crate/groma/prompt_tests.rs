//! Tests of [`super`].

use super::*;
use crate::groma::golden::Golden;

fn text(parts: &[Part]) -> String {
    parts.iter().map(Part::text).collect()
}

#[test]
fn prompts_and_ids_equal_the_goldens() {
    for folder in ["tiny", "tiny2", "tiny3", "tiny4", "tiny5"] {
        let g = Golden::open(folder);
        let template =
            g.config.get("chat_template").map_or(Template::Vicuna, |t| serde_json::from_value(t.clone()).unwrap());
        let tokens = Tokens::from_bytes(&g.file("tokenizer.json")).unwrap();
        let sp = Special::of(&tokens).unwrap();
        for (name, id) in g.book()["special"].as_object().unwrap() {
            assert_eq!(tokens.special(name).map(u64::from), id.as_u64(), "{folder}: {name}");
        }
        for case in g.cases() {
            let id = case["id"].as_str().unwrap();
            let turns: Vec<Vec<Part>> =
                case["turns"].as_array().unwrap().iter().map(|t| vec![Part::template(t.as_str().unwrap())]).collect();
            let parts = build(template, &turns);
            assert_eq!(text(&parts), case["prompt"].as_str().unwrap(), "{folder}/{id}");
            let ids = tokens.encode_template(&parts).unwrap();
            let list = |v: &serde_json::Value| -> Vec<u32> { serde_json::from_value(v.clone()).unwrap() };
            assert_eq!(ids, list(&case["input_ids"]), "{folder}/{id}");
            let expect = &case["expect"];
            let matches: Vec<usize> = serde_json::from_value(expect["match"].clone()).unwrap();
            let expanded_ids = list(&expect["expanded_ids"]);
            let num_image = expanded_ids.iter().filter(|t| **t == sp.image).count();
            let regions = expect["num_regions"].as_u64().unwrap() as usize;
            let got = expand(&ids, num_image, regions, &matches, &sp).unwrap();
            assert_eq!(got.ids, expanded_ids, "{folder}/{id}");
            assert_eq!(got.rows.len(), got.ids.len());
            let rows = |f: fn(&Row) -> Option<u32>| got.rows.iter().filter_map(f).collect::<Vec<_>>();
            assert_eq!(
                rows(|r| if let Row::Image(i) = r { Some(*i) } else { None }),
                (0..num_image as u32).collect::<Vec<_>>()
            );
            let want: Vec<u32> = (0..regions as u32).chain(matches.iter().map(|m| *m as u32)).collect();
            assert_eq!(rows(|r| if let Row::Region(j) = r { Some(*j) } else { None }), want, "{folder}/{id}");
        }
    }
}

#[test]
fn smollm2_prompts_equal_the_goldens() {
    for case in Golden::open("smollm2").cases() {
        let turns: Vec<Vec<Part>> =
            case["turns"].as_array().unwrap().iter().map(|t| vec![Part::typed(t.as_str().unwrap())]).collect();
        assert_eq!(text(&build_text_only(Template::ChatMl, &turns)), case["prompt"].as_str().unwrap());
    }
}

#[test]
fn expansion_equals_the_golden() {
    let g = Golden::open("ops");
    let case = g.cases().iter().find(|c| c["op"] == "expand_ids").unwrap();
    let number = |name: &str| case["attrs"][name].as_u64().unwrap() as u32;
    let first = number("first_index");
    let sp = Special {
        image: number("image"),
        region: number("region"),
        refer_box: 5000,
        refer_feat: 5001,
        index: (first..first + 100).collect(),
    };
    let ids: Vec<u32> = serde_json::from_value(case["attrs"]["ids"].clone()).unwrap();
    let got = expand(&ids, number("num_image") as usize, number("num_region") as usize, &[], &sp).unwrap();
    let want: Vec<u32> = serde_json::from_value(case["expect"]["ids"].clone()).unwrap();
    assert_eq!(got.ids, want);
}

#[test]
fn wordings_are_upstreams() {
    for (turn, says) in [
        (ask("What is it?", true, 0).unwrap(), "[grounding]What is it?"),
        (ask(" What is it? ", false, 0).unwrap(), " What is it? "),
        (detect("dog").unwrap(), "Locate all <p>dog</p> in this image."),
        (locate("the left dog").unwrap(), "Locate <p>the left dog</p> in the image."),
        (caption(false), "Please briefly describe <roi><refer_box></roi><refer_feat>."),
        (caption(true), "Please describe <roi><refer_box></roi><refer_feat> in details."),
        (describe(), "[grounding]Please briefly summarize the content of this image."),
    ] {
        assert_eq!(text(&turn.parts), says);
    }
    for empty in [ask("", true, 1), ask(" \n", false, 0), detect("\t"), locate("")] {
        assert_eq!(empty.unwrap_err().code, Code::QuestionEmpty);
    }
}

#[test]
fn boxes_take_their_places_in_a_question() {
    const R: &str = "<roi><refer_box></roi><refer_feat>";
    for (question, boxes, says, order) in [
        ("What is [1]?", 1, format!("What is {R}?"), vec![0]),
        ("Is [2] left of [1]?", 2, format!("Is {R} left of {R}?"), vec![1, 0]),
        ("What is this?", 1, format!("What is this {R}?"), vec![0]),
        ("What is this ?! ", 1, format!("What is this {R} ?! "), vec![0]),
        ("Compare", 2, format!("Compare {R} {R}"), vec![0, 1]),
        ("Compare [2] and others.", 3, format!("Compare {R} and others {R} {R}."), vec![1, 0, 2]),
        ("Is [1] [1]?", 1, format!("Is {R} {R}?"), vec![0, 0]),
        ("[1]", 1, R.to_owned(), vec![0]),
        ("a[0] or [1]?", 0, "a[0] or [1]?".to_owned(), vec![]),
        ("[x] [] [ 1 ] [1", 1, format!("[x] [] [ 1 ] [1 {R}"), vec![0]),
    ] {
        let turn = ask(question, false, boxes).unwrap();
        assert_eq!((text(&turn.parts), turn.boxes), (says, order), "{question}");
    }
    assert_eq!(ask("What is [3]?", true, 2).unwrap_err().code, Code::Usage);
    assert_eq!(ask("What is [0]?", true, 2).unwrap_err().code, Code::Usage);
    assert_eq!(ask("[99999999999999999999999]?", true, 1).unwrap().boxes, [0]);
    // What a person typed stays typed: a placeholder is the only thing with a meaning.
    let turn = ask("<refer_box> [1]", false, 1).unwrap();
    assert_eq!(turn.parts, [Part::typed("<refer_box> "), Part::template(R)]);
}

#[test]
fn wrong_prompts_are_errors() {
    let sp = Special { image: 1, region: 2, refer_box: 3, refer_feat: 4, index: vec![10, 11] };
    let code = |ids: &[u32], regions: usize, matches: &[usize]| expand(ids, 2, regions, matches, &sp).unwrap_err().code;
    assert_eq!(code(&[1, 9], 1, &[]), Code::Usage);
    assert_eq!(code(&[2, 1], 1, &[]), Code::Usage);
    assert_eq!(code(&[1, 1, 2], 1, &[]), Code::Usage);
    assert_eq!(code(&[1, 2, 4], 1, &[0]), Code::Usage, "O-18");
    assert_eq!(code(&[1, 2, 3, 4], 1, &[]), Code::Usage);
    assert_eq!(code(&[1, 2], 3, &[]), Code::PackInvalid);
    assert_eq!(code(&[1, 2, 3], 1, &[1]), Code::Internal);
}

#[test]
fn earlier_indices_follow_their_regions() {
    let old = [[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]];
    let new = [[0.5, 0.5, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2], [0.2, 0.2, 0.2, 0.21]];
    let mut parts = [
        Part::template("<p>a</p><roi><r0><r1></roi><refer_feat><r7><rx><r"),
        Part::typed(" and <r0>"),
        Part::template("<roi><r1></roi>."),
    ];
    remap_indices(&mut parts, &old, &new);
    assert_eq!(text(&parts), "<p>a</p><roi><r2><r1></roi><refer_feat><r7><rx><r and <r0><roi><r1></roi>.");
}
