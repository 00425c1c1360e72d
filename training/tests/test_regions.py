"""What proposals show: the stage between detection and language."""

import random

import torch

from groma_training import regions, templates
from groma_training.data.photo import Object, Photo, Phrase
from groma_training.language import Wordings, scene_as_shown
from groma_training.model.groma import Groma
from groma_training.nouns import Nouns
from groma_training.proposer import NOTHING, UNKNOWN, region_loss
from groma_training.replay import Replay
from groma_training.run import Run, Schedule
from groma_training.templates import Scene
from groma_training.views import View
from groma_training.vocabulary import category_of


def toy_nouns(config, tokenizer):
    torch.manual_seed(1)
    return Nouns(["dog", "cat"], torch.randn(config.llm.vocab_size, config.llm.hidden_size), tokenizer)


def toy_view():
    """A red dog on the left, a blue cat on the right."""
    pixels = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    pixels[0, 8:32, 8:32], pixels[2, 32:60, 36:60] = 250, 250
    photo = Photo("a", "", 64, 64, [Object((8, 8, 32, 32), "dog"), Object((36, 32, 60, 60), "cat")], exhaustive=True,
                  label_set="coco-80")
    return View(photo, pixels, torch.tensor([[20, 20, 24, 24], [48, 46, 24, 28]]) / 64, [0, 1], torch.zeros(0, 4))


def test_nothing_is_a_kind_of_its_own(toy_config, toy_tokenizer):
    nouns = toy_nouns(toy_config, toy_tokenizer)
    labels, even = torch.tensor([0, 1, NOTHING, UNKNOWN]), torch.ones(2)
    right = torch.cat([nouns.vectors, torch.zeros(2, nouns.vectors.shape[1])])
    loss, report = region_loss(right, labels, nouns, even)
    assert report == {"right": 1.0, "thing": 1.0, "empty": 1.0} and float(loss) < 0.2
    worse, report = region_loss(right[[0, 0, 1, 1]], labels, nouns, even)
    assert report == {"right": 0.5, "thing": 1.0, "empty": 0.0} and worse > loss + 1
    assert region_loss(right[:1], torch.tensor([UNKNOWN]), nouns, even) == (0, {}), "what is not known teaches nothing"


def test_a_view_is_learnt_by_heart_from_its_own_proposals(toy_config, toy_tokenizer, tmp_path):
    nouns, g = toy_nouns(toy_config, toy_tokenizer), Groma(toy_config).requires_grad_(False)
    model = regions.Shows(g.region_encoder.requires_grad_(True))
    kept = {n: p.clone() for n, p in g.named_parameters() if not p.requires_grad}
    seen = regions.look(g, toy_view(), nouns)
    assert (seen.labels >= 0).sum() >= 2 and (seen.labels == NOTHING).sum() > 0
    run = Run(tmp_path, model, [{"params": [p for p in model.parameters() if p.requires_grad], "lr": 3e-3}],
              Schedule(150, 5), average=0.0)
    while not run.done:
        report = regions.teach(run, [seen], nouns, torch.ones(2))
    assert report == {"right": 1.0, "thing": 1.0, "empty": 1.0}
    assert all(torch.equal(p, kept[n]) for n, p in g.named_parameters() if n in kept), "nothing else is touched"
    assert all(n.startswith("region_encoder.") for n in run.trained())


def test_replay_holds_so_many_views():
    replay = Replay(3, random.Random(0))
    for i in range(10):
        replay.add(i)
    assert len(replay.seen) == 3 and len(set(replay.draw(5))) == 3 and max(replay.seen) > 2


def test_some_regions_that_show_nothing_are_enough():
    few = regions.Seen(torch.zeros(0), torch.rand(40, 4), torch.tensor([3] + [NOTHING] * 38 + [UNKNOWN])).some(random.Random(0))
    assert len(few[0]) == len(few[1]) == 1 + regions.MOST_EMPTY and few[1][0] == 3


def test_a_scene_as_the_region_encoder_sees_it(toy_config, toy_tokenizer):
    """Region 0 is a dog for sure, 1 perhaps one, 2 nothing, 3 a cat that the annotation calls a dog."""
    nouns = toy_nouns(toy_config, toy_tokenizer)
    d, c = nouns.index["dog"], nouns.index["cat"]
    beliefs = torch.zeros(4, 3)
    beliefs[0, d], beliefs[1, d], beliefs[1, 2], beliefs[2, 2], beliefs[3, c], beliefs[3, d] = 0.9, 0.25, 0.7, 1.0, 0.95, 0.05
    told = Scene(["dog"], [(0.5, 0.5, 0.1, 0.1)], [3], ["A dog."], [("the old dog", 3), ("a dog", 0), ("a dog", 1)])
    wordings = Wordings([], nouns.names, random.Random(0))
    boxes = torch.arange(16).reshape(4, 4) / 20
    shown = scene_as_shown(told, boxes, beliefs, nouns, wordings)
    assert sorted(zip(shown.labels, map(str, shown.regions), strict=True)) == [("cat", "3"), ("dog", "0"), ("dog", "1")]
    assert dict(zip(shown.regions, shown.named, strict=True)) == {0: True, 1: False, 3: True}
    said = {e.refer: e.answer for i in range(20) for e in templates.questions(shown, 30, random.Random(i)) if e.kind == "say"}
    assert said == {0: "Dog.", 3: "Cat."}, "what more likely shows nothing is not called a dog"
    assert shown.phrases == [("a dog", 0)], "the others can't be read off their tokens"
    assert {(category_of(text, {"dog", "cat"}), r) for text, r in shown.sought} == {("dog", 0), ("cat", 3)}
    assert templates.find_all(shown, "dog", random.Random(0)).answer == "<roi><r0><r1></roi>"
    assert templates.find_one(shown, "cat", random.Random(0)).answer == "<roi><r3></roi>"
    assert templates.find_none(shown, random.Random(0)) is None, "all kinds may be there"
    assert shown.captions == told.captions and list(shown.mentions.items()) == [("dog", [0]), ("cat", [3])]
    # Another region of the same dog is no second dog.
    boxes[1] = boxes[0] + 0.001
    again = scene_as_shown(told, boxes, beliefs, nouns, wordings)
    assert sorted(again.labels) == ["cat", "dog"]
    assert templates.find_all(again, "dog", random.Random(0)).answer == "<roi><r0></roi>"
    # Nor is a part of it, however little both overlap.
    boxes[1] = torch.cat([boxes[0, :2], boxes[0, 2:] / 3])
    assert scene_as_shown(told, boxes, beliefs, nouns, wordings).regions_of("dog") == [0]
    # Unsure of all, the decoder still looks for what somebody refers to: the best scored of those that are about as sure.
    beliefs[:, c], beliefs[:, d] = torch.tensor([0.01, 0.05, 0.06, 0.01]), 0.0
    unsure = scene_as_shown(told, boxes, beliefs, nouns, wordings)
    assert [r for _, r in unsure.sought] == [1] and unsure.vocabulary == ["dog"] and not unsure.labels


def test_wordings_name_a_kind_and_nothing_else():
    said = [Phrase(t, [[0, 0, 1, 1]]) for t in ("a brown puppy in the snow", "the dog on the left", "the largest dog")]
    photo = Photo("a", "a.jpg", 2, 2, phrases=said)
    texts = {Wordings([photo], ["dog"], random.Random(i)).of("dog") for i in range(60)}
    assert "a brown puppy in the snow" in texts and "a dog" in texts and all(category_of(t, {"dog"}) for t in texts)
    assert not any("left" in t or "largest" in t for t in texts)
