"""Wordings, the grammar of answers, and prompts as ids."""

import random
import re

import pytest
import torch

from groma_training import bases, templates
from groma_training.data.photo import Turn
from groma_training.dialogue import Writer, pack
from groma_training.grounding import Segment, parse
from groma_training.scenes import make
from groma_training.templates import Exchange, Scene
from groma_training.tokens import IGNORE
from groma_training.vocabulary import NOUNS, category_of, plural


def scene(**changes):
    values = {"labels": ["dog", "dog", "cat"], "boxes": [(0.2, 0.5, 0.2, 0.2), (0.8, 0.5, 0.2, 0.2), (0.5, 0.5, 0.3, 0.3)],
              "regions": [4, 1, 0], "vocabulary": ("dog", "cat", "zebra"), "captions": ["Two dogs play with a cat."],
              "phrases": [("the cat between the dogs", 0)]}
    return Scene(**{**values, **changes})


def test_find_all_lists_every_region_in_order():
    e = templates.find_all(scene(), "dog", random.Random(0))
    assert e.answer == "<roi><r1><r4></roi>"
    assert "<p>dog" in e.question


def test_find_all_is_not_asked_where_regions_are_missing():
    assert templates.find_all(scene(regions=[4, None, 0]), "dog", random.Random(0)) is None


def test_absent_category_has_its_answer():
    e = templates.find_none(scene(), random.Random(1))
    assert e.answer == "There is no zebra in the image."
    assert templates.find_none(scene(vocabulary=()), random.Random(1)) is None


def test_one_of_several_is_told_apart_by_place():
    for seed in range(8):
        e = templates.find_one(scene(), "dog", random.Random(seed))
        assert e.answer == ("<roi><r4></roi>" if "left" in e.question else "<roi><r1></roi>")


def test_several_things_are_sought_at_once():
    seen = set()
    for seed in range(20):
        e = templates.find_many(scene(), random.Random(seed))
        assert ("zebra" in e.question) == (" There is no zebra in the image." in e.answer)
        asked, tied = re.findall(r"<p>(.*?)</p>", e.question), re.findall(r"<p>(.*?)</p>(?=<roi>)", e.answer)
        assert [a for a in asked if a != "zebra"] == tied, "in the question's order"
        for text, ids in re.findall(r"<p>(.*?)</p>(<roi>.*?</roi>)", e.answer):
            assert ids == ("<roi><r1><r4></roi>" if text in ("dog", "dogs") else "<roi><r0></roi>")
        seen.add("zebra" in e.question)
    assert seen == {True, False}
    assert templates.find_many(scene(labels=["dog"] * 2, boxes=scene().boxes[:2], regions=[4, 1], phrases=[]),
                               random.Random(0)) is None


def test_description_points_at_the_users_box():
    e = templates.describe(scene(), random.Random(0), which=2)
    assert "<roi><r0></roi><refer_feat>" in e.question
    assert e.answer == "Cat." and e.refer == 0


def test_caption_is_tied_to_regions():
    text, count = templates.ground_caption("Two dogs play with a cat.", {"dog": [1, 4], "cat": [0]})
    assert text == "<p>Two dogs</p><roi><r1><r4></roi> play with <p>a cat</p><roi><r0></roi>."
    assert count == 2


def test_singular_mention_of_several_is_left_alone():
    text, count = templates.ground_caption("A dog sleeps.", {"dog": [1, 4]})
    assert text == "A dog sleeps." and count == 0


def test_mentions_of_guessed_regions_cite_the_best():
    shown = {"dog": [1, 4, 5, 9], "cat": [2, 3]}
    said = [templates.ground_caption(t, shown, best_first=True)[0] for t in ("Two dogs see a cat.", "Many dogs.", "Four dogs.")]
    assert said[0] == "<p>Two dogs</p><roi><r1><r4></roi> see <p>a cat</p><roi><r2></roi>."
    assert said[1:] == ["<p>Many dogs</p><roi><r1><r4><r5></roi>.", "<p>Four dogs</p><roi><r1><r4><r5><r9></roi>."]


@pytest.mark.parametrize(("captions", "mentions", "answer"), [
    (["A dog barks."], {"dog": [2], "cat": [7]}, "<p>A dog</p><roi><r2></roi> barks."),
    (["A dog sees a cat."], {"cat": [7], "dog": []}, "<p>A cat</p><roi><r7></roi>."),
    ([], {"cat": [7], "apple": [8, 9], "dog": []}, "<p>A cat</p><roi><r7></roi> and <p>two apples</p><roi><r8><r9></roi>."),
    (["It rains."], {"cat": [7]}, "<p>A cat</p><roi><r7></roi>."),
    (["A dog barks."], {"dog": []}, "A dog barks."),
    ([], {"dog": []}, None),
])
def test_captions_name_what_regions_surely_show(captions, mentions, answer):
    mentions = {**mentions, "cat": mentions.get("cat", [])}
    told = [templates.summarise(scene(captions=captions, mentions=mentions), random.Random(i)) for i in range(9)]
    assert {e and e.answer for e in told} == {answer}


def test_mirrored_scenes_use_no_human_words_about_sides():
    phrases = [("the leftmost dog", 4), ("a small cat", 0)]
    mirrored = scene(mirrored=True, captions=["A cat on the left of a dog."], phrases=phrases)
    assert {templates.refer(mirrored, random.Random(i)).answer for i in range(9)} == {"<roi><r0></roi>"}
    assert templates.summarise(mirrored, random.Random(0)) is None
    seen = {templates.refer(scene(phrases=phrases), random.Random(i)).answer for i in range(9)}
    assert seen == {"<roi><r0></roi>", "<roi><r4></roi>"}


def test_phrases_turned_round_describe_a_users_box():
    e = templates.describe_phrase(("the cat between the dogs", 0), random.Random(0))
    assert e.answer == "The cat between the dogs." and "<roi><r0></roi><refer_feat>" in e.question and e.refer == 0


def test_captions_cite_no_part_of_a_kind():
    """Of two dogs only one has a region: "a dog" may be the other."""
    partly = scene(regions=[4, None, 0], captions=["A dog sees a cat."])
    assert templates.summarise(partly, random.Random(0)).answer == "A dog sees <p>a cat</p><roi><r0></roi>."


def test_instruct_turns_become_region_lists():
    turn = Turn("What is there?", "<p>A dog</p>[0] and <p>balls</p>[1][2], and <p>a tree</p>[3].", [(0, 0, 1, 1)] * 4)
    e = templates.conversation([turn], [[5, None, 7, None]])[0]
    assert e.question.startswith("[grounding]")
    assert e.answer == "<p>A dog</p><roi><r5></roi> and <p>balls</p><roi><r7></roi>, and a tree."


def test_questions_are_distinct_and_in_the_grammar():
    for seed in range(20):
        asked = templates.questions(scene(), 8, random.Random(seed))
        assert len({(e.question, e.answer) for e in asked}) == len(asked) > 3


def test_made_up_scenes_ask_everything():
    rng = random.Random(0)
    kinds = {e.kind for _ in range(30) for e in templates.questions(make(12, rng).scene(NOUNS), 10, rng)}
    assert kinds == {"all", "one", "place", "phrase", "say", "tell", "caption", "none", "many"}


@pytest.mark.parametrize(("phrase", "category"), [
    ("the two young men on the left", "person"), ("a red fire hydrant", "fire hydrant"), ("a slice of pizza", "pizza"),
    ("puppies", "dog"), ("the sky", None), ("a dog next to a cat", "dog")])
def test_head_nouns(phrase, category):
    assert category_of(phrase, {"person", "fire hydrant", "pizza", "dog", "cat"}) == category


def test_plurals():
    assert [plural(w) for w in ("dog", "bus", "person", "sheep", "puppy")] == ["dogs", "buses", "people", "sheep", "puppies"]


def test_parse_follows_the_grammar():
    pieces = ["<p>", " a dog", "</p>", "<roi>", "<r3>", "<r9>", "</roi>", " runs", "<roi>", "<r0>", "</roi>", "<|im_end|>"]
    assert parse(pieces, 5) == [Segment("a dog", True, [3]), Segment("runs"), Segment("", True, [0])]


@pytest.fixture(scope="module")
def writer():
    if not (bases.folder() / "SmolLM2-135M-Instruct.Q4_1.gguf").exists():
        pytest.skip("the decoder base is not on this machine")
    return Writer(bases.tokenizer(), "chatml")


def test_packed_branches_see_the_prefix_and_themselves(writer):
    prefix = writer.prefix(3, [2, 0])
    packed = pack(writer, prefix, [Exchange("Where?", "<roi><r2></roi>", "one"), Exchange("Who?", "No one.", "chat")])
    see = packed.mask(torch.float32)[0, 0] == 0
    first, second = (packed.owner == 0).nonzero()[:, 0], (packed.owner == 1).nonzero()[:, 0]
    assert see[second[0], : len(prefix)].all() and not see[second][:, first].any()
    assert packed.positions[second[0]] == len(prefix) == packed.positions[first[0]]
    # Labels are shifted: what is predicted at t stands at t+1, and questions are not learnt.
    learnt = (packed.labels != IGNORE).nonzero()[:, 0]
    assert torch.equal(packed.labels[learnt], packed.ids[learnt + 1])
    answer = writer.tokenizer.decode(packed.labels[learnt].tolist(), skip_special_tokens=False)
    assert answer == "<roi><r2></roi><|im_end|>No one.<|im_end|>"


def test_prefix_names_regions_in_the_given_order(writer):
    ids = writer.prefix(1, [7, 3])
    at = [i for i, t in enumerate(ids) if t == writer.special.region]
    assert [ids[i - 1] for i in at] == [writer.special.index[7], writer.special.index[3]]
