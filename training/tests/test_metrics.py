"""Measures on cases small enough to know the answer, and the command line as an engine."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from groma_training.data.photo import Object, Photo, Phrase
from groma_training.evaluate import examples, metrics
from groma_training.evaluate.card import disagreements, table, write_part
from groma_training.evaluate.engines import NO_BOXES, Answer, CommandLineEngine
from groma_training.evaluate.held_out import (
    captions,
    detect_all,
    detect_by_regions,
    proposals,
    referring,
    referring_by_regions,
    region_said,
)
from groma_training.grounding import Segment
from groma_training.nouns import Nouns

BOX, FAR = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 90.0, 90.0)


class Fixed:
    """Always proposes two boxes; finds every dog, and a cat that is not there."""

    def proposals(self, photo, limit):
        return torch.tensor([BOX, (50, 50, 80, 90)])[:limit].float(), torch.tensor([0.9, 0.8])[:limit]

    def ask(self, photo, task, text, refer):
        table = torch.tensor([BOX, FAR])
        if task == "describe":
            return Answer([Segment("A big dog", True, [0, 1]), Segment("on"), Segment("a thing", True, [1])], table)
        if task == "caption":
            return Answer([Segment("A small dog.")], table)
        return Answer([Segment("", True, [0] if text in ("dog", "cat", "the dog") else [])], table)


PHOTO = Photo("p", "", 100, 100, [Object(BOX, "dog"), Object(FAR, "car"), Object((0, 0, 99, 99), "dog", True)], True,
              "voc-20", phrases=[Phrase("the dog", [BOX]), Phrase("both", [BOX, FAR]), Phrase("the car", [FAR])])


def value(figures, name):
    return next(f for f in figures if f.name.strip().startswith(name))


def test_proposer_measures():
    found = proposals(Fixed(), [PHOTO])
    assert value(found, "proposer recall@0.5, 100").value == 1.0
    assert value(found, "recall@0.5, 100 proposals, small").questions == 1
    # One box is exact (10 of 10 thresholds), the other has IoU 0.75 (6 of 10).
    assert abs(value(found, "proposer AR@100").value - 0.8) < 1e-6


def test_referring_counts_only_phrases_with_one_box():
    rec = value(referring(Fixed(), [PHOTO]), "REC")
    assert (rec.value, rec.questions, rec.photos) == (0.5, 2, 1)


def test_detect_all_and_false_alarms():
    found = detect_all(Fixed(), [PHOTO], absent=18)
    assert abs(value(found, "detect-all F1").value - 2 / 3) < 1e-6
    alarms = value(found, "detect-all false")
    assert alarms.questions == 18 and abs(alarms.value - 1 / 18) < 1e-6


def test_what_perception_allows_is_told_beside_it(toy_tokenizer):
    """Four regions: the dog, the car taken for a dog, a second box on the dog that shows nothing, and a cat that is none."""
    torch.manual_seed(0)
    nouns = Nouns(["car", "cat", "dog"], torch.randn(10, 16), toy_tokenizer)
    dog, cat = nouns.vectors[nouns.index["dog"]], nouns.vectors[nouns.index["cat"]]

    class Eyes:
        def regions(self, photo, refer):
            places = [[0.05, 0.05, 0.1, 0.1], [0.7, 0.7, 0.4, 0.4], [0.05, 0.05, 0.1, 0.1], [0.3, 0.3, 0.1, 0.1]]
            return torch.tensor(places), None

        def shown(self, photo, centre):
            return torch.stack([dog, dog * 0.9, dog * 0.1, cat])

    assert nouns.nearest(Eyes().shown(None, None)).tolist() == [2, 2, 3, 1]
    photos = [Photo("p", "", 100, 100, PHOTO.objects, True, "three"),
              Photo("q", "", 9, 9, [Object((6, 0, 9, 3), "cat")], True, "three")]
    found = detect_by_regions(Eyes(), photos, nouns)
    # Dog: one hit, one wrong; car: one miss; the other photo's cat: one wrong, one miss.
    assert abs(value(found, "detect-all F1").value - 2 / 6) < 1e-6
    assert value(found, "ceiling").value == 2 / 3
    assert value(found, "false alarms").value == 2 / 3, "the first photo's cat, the second one's dog"
    phrases = [Phrase("the big dog", [(0, 0, 10, 10)]), Phrase("a red cat", [(0, 0, 10, 10)]), Phrase("it", [(0, 0, 10, 10)])]
    told = referring_by_regions(Eyes(), [replace(photos[0], phrases=phrases), photos[1]], nouns)
    assert value(told, "REC accuracy").value == 2 / 3, "the dog, and the best scored one where no category is named"
    assert value(told, "phrases that name").value == 1 / 3


def test_caption_precision_tells_what_it_could_not_map():
    found = captions(Fixed(), [PHOTO])
    assert value(found, "grounded captions").value == 0.5
    assert value(found, "phrases that map to no").value == 0.5


def test_first_mentions_are_mapped_to_categories():
    said = region_said(Fixed(), [PHOTO])
    assert value(said, "region category").value == 0.5 and value(said, "boxes that are not").questions == 2


def test_greedy_matching_takes_each_box_once():
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    assert metrics.greedy_matches(truth, truth[:1]) == 1
    assert metrics.greedy_matches(truth, truth) == 2
    assert metrics.greedy_matches(truth, torch.zeros(0, 4)) == 0


def test_as_many_takes_as_many_as_are_true():
    truth = torch.tensor([[0.0, 0, 10, 10]])
    assert metrics.as_many_recall(truth, torch.tensor([[20.0, 20, 30, 30], [0, 0, 10, 10]])) == 0
    assert metrics.as_many_recall(truth, truth) == 1


def test_intervals_hold_the_value_and_empty_measures_say_so():
    f = metrics.ratio("x", [(1, 2), (2, 2), (0, 3)])
    assert f.low <= f.value == 3 / 7 <= f.high and (f.photos, f.questions) == (3, 7)
    assert metrics.ratio("x", []).value is None and "—" in metrics.ratio("x", []).row()


def test_table_is_replaced_in_place(tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text("# Card\n\n<!-- measured: begin -->\nold\n<!-- measured: end -->\n\n## After\n")
    write_part(card, "measured", table([metrics.ratio("recall", [(1, 2)])], "1 photo"))
    text = card.read_text()
    assert "old" not in text and "| recall | 0.500 |" in text and text.endswith("## After\n")


STUB = """#!/bin/sh
cat > /dev/null
echo "$@" >> {log}
if [ "$1" = regions ]; then echo '{regions}'; elif [ "$3" = broken ]; then echo no model >&2; exit 3; else echo '{answer}'; fi
"""


def test_command_line_engine_reads_what_groma_prints(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    photo = Photo("a", str(tmp_path / "a.png"), 100, 80)
    regions = [{"id": 0, "box": [1, 2, 30, 40], "score": 0.9}, {"id": 1, "box": [5, 5, 9, 9], "score": 0.4}]
    answer = {"photo": {"width": 100, "height": 80}, "text": "a dog", "regions": regions, "tokens": [1, 2, 3], "stopped": "end",
              "segments": [{"index": 0, "kind": "phrase", "text": "a dog", "closed": True, "regions": regions[1:]},
                           {"index": 1, "kind": "text", "text": "runs", "closed": True, "regions": []}]}
    stub, log = tmp_path / "groma", tmp_path / "log"
    stub.write_text(STUB.format(log=log, regions=json.dumps({"regions": regions}), answer=json.dumps(answer)))
    stub.chmod(0o755)
    engine = CommandLineEngine(str(stub), "pack")
    found, scores = engine.proposals(photo, 50)
    assert found.tolist() == [[1, 2, 30, 40], [5, 5, 9, 9]] and scores[0] == 0.9
    said = engine.ask(photo, "detect", "dog", NO_BOXES)
    assert said.cited() == [1] and said.tokens == 3
    assert said.segments == [Segment("a dog", True, [1]), Segment("runs", False, [])]
    engine.ask(photo, "caption", "", torch.tensor([[1.0, 2, 3, 4]]))
    with pytest.raises(RuntimeError, match="exit code 3: no model"):
        engine.ask(photo, "detect", "broken", NO_BOXES)
    calls = log.read_text().splitlines()
    assert calls[0].startswith("regions - --limit 50 --min-score 0 --nms 0.6 --model pack --json")
    assert calls[2].startswith("caption - --box=1.00,2.00,3.00,4.00 --max-tokens 64 --model pack")


def test_engines_are_compared_figure_by_figure():
    ours = [metrics.Figure("recall", 0.5, 0.4, 0.6, 9, 40), metrics.Figure("F1", 0.3, 0.2, 0.4, 9, 20),
            metrics.Figure("only here", 1.0, 1, 1, 9, 9)]
    theirs = [{"name": "recall", "value": 0.51, "photos": 9, "questions": 40},
              {"name": "F1", "value": 0.2, "photos": 9, "questions": 20}]
    assert disagreements(ours, theirs, 0.02) == ["F1: 0.300 of 20, there 0.200 of 20"]
    theirs[0]["photos"] = 8
    assert len(disagreements(ours, theirs, 0.02)) == 2, "other photos are no comparison"


def test_examples_come_with_pictures_and_verdicts(tmp_path, monkeypatch):
    Image.new("RGB", (900, 600)).save(tmp_path / "a.png")
    spoken = {"regions": [{"id": 2, "box": [1, 2, 30, 40], "score": 0.9}], "tokens": [1, 2],
              "segments": [{"text": "A", "kind": "text"}, {"text": "red | cat", "kind": "phrase", "regions": [{"id": 2}]},
                           {"text": ".", "kind": "text"}]}
    binary = tmp_path / "groma"
    binary.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\necho \'' + json.dumps(spoken) + "\'\n")
    binary.chmod(0o755)
    (tmp_path / "list.toml").write_text('[[example]]\nphoto = "a.png"\ntask = "describe"\nverdict = "good"\n')
    monkeypatch.setattr("sys.argv", ["examples", "--groma", str(binary), "--model", "m", "--photos", str(tmp_path), "--list",
                                     str(tmp_path / "list.toml"), "--card", str(tmp_path / "CARD.md")])
    examples.main()
    card = (tmp_path / "CARD.md").read_text()
    assert "(examples/01-a-describe.jpg) | `groma describe a.png` | A **red \\| cat** [2]. | good |" in card
    with Image.open(tmp_path / "examples" / "01-a-describe.jpg") as picture:
        assert picture.size == (420, 280)
