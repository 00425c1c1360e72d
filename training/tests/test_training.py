"""Toys that must be learnt by heart, and runs that must survive being stopped."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from groma_training import boxes, weights, whiten
from groma_training.align import Material
from groma_training.data.photo import Object, Photo
from groma_training.detection_loss import Truth, proposal_loss
from groma_training.dialogue import Writer, pack
from groma_training.instruct import conversation
from groma_training.language import INDEX_WEIGHT, Sample, Speaker, choose_regions, scene_of
from groma_training.model.groma import Groma
from groma_training.model.select import nms
from groma_training.nouns import Nouns
from groma_training.proposer import NOTHING, SPARE_VIEWS, UNKNOWN, Stage1, collate
from groma_training.replay import Replay
from groma_training.run import Run, Schedule, averaged, half_type, plan
from groma_training.templates import Exchange
from groma_training.tokens import IGNORE
from groma_training.views import View, to_input


def learn(parameters, loss_of, steps, rate):
    optimizer = torch.optim.Adam(list(parameters), lr=rate)
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_proposer_learns_two_pictures_by_heart(toy_config):
    model = Groma(toy_config).perceiver
    pixels = torch.randn(2, 3, 64, 64)
    truths = [Truth(torch.tensor([[0.3, 0.3, 0.3, 0.4], [0.7, 0.6, 0.4, 0.3]]), torch.zeros(0, 4)),
              Truth(torch.tensor([[0.5, 0.5, 0.8, 0.7]]), torch.zeros(0, 4))]
    learn(model.parameters(), lambda: proposal_loss(model(pixels), truths)[0], 150, 2e-3)
    out = model.eval()(pixels)
    for b, truth in enumerate(truths):
        found = boxes.corners(out.boxes[b])
        best = found[nms(found, out.scores[b], 0.6, 0.0, len(truth.boxes))]
        assert boxes.iou_matrix(boxes.corners(truth.boxes), best).max(1).values.min() > 0.75


@pytest.fixture
def speaker(toy_config, toy_tokenizer):
    writer = Writer(toy_tokenizer, "chatml")
    groma = Groma(toy_config)
    nouns = Nouns(["dog", "cat"], groma.llm.model.embed_tokens.weight.detach(), toy_tokenizer)
    return Speaker(groma, writer.special, nouns), writer


def samples_of(writer):
    """Two pictures and a made-up scene with different answers to the same questions."""
    out = []
    for seed, answer in ((1, "<roi><r0></roi>"), (2, "<roi><r1><r2></roi>")):
        asked = [Exchange("<p>dog</p>", answer, "all"), Exchange("<roi><r1></roi><refer_feat>", "red dog", "say", 1)]
        regions = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.2
        pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        out.append(Sample(pack(writer, writer.prefix(16, range(3)), asked), regions, [e.kind for e in asked], pixels))
    asked = [Exchange("<p>cat</p>", "<roi><r2></roi>", "one")]
    out.append(Sample(pack(writer, writer.prefix(0, range(3)), asked), torch.rand(3, 4), ["one"], shown=torch.randn(3, 48)))
    return out


def test_everything_together_reaches_loss_zero(speaker):
    model, writer = speaker
    samples = samples_of(writer)
    trained = [p for n, p in model.named_parameters() if ".perceiver." not in n]
    loss = learn(trained, lambda: model(samples)[0], 250, 3e-3)
    assert loss < 0.02
    assert all(v == 1.0 for v in model(samples)[1].values())


def test_batches_equal_single_samples(speaker):
    """Padding and packing must not leak: a batch's loss is the weighted mean of its samples'."""
    model, writer = speaker
    samples = samples_of(writer)
    model.eval()
    with torch.no_grad():
        together = float(model(samples)[0])
        alone = [float(model([s])[0]) for s in samples]
    shares = []
    for s in samples:
        target = s.packed.labels[s.packed.labels >= 0]
        shares.append(float(torch.where(target >= writer.special.index[0], INDEX_WEIGHT, 1.0).sum()))
    mean = sum(a * w for a, w in zip(alone, shares, strict=True)) / sum(shares)
    assert abs(together - mean) < 1e-4


def test_whitened_projection_is_centred_and_even():
    conv = nn.Conv2d(34, 16, 1)
    state = torch.randn(500, 32) * torch.linspace(0.1, 3, 32) + 50 * torch.eye(32)[3]
    whiten.whiten_projection(conv.requires_grad_(False), state)
    conv.weight[:, 32:] = 0
    out = conv(torch.cat([state, torch.zeros(500, 2)], 1).T[None, :, :, None])[0, :, :, 0]
    assert out.mean(1).abs().max() < 0.02 and (out.std(1) - 1).abs().max() < 0.05


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(3))
        self.b = nn.Parameter(torch.ones(2), requires_grad=False)


def test_a_stopped_run_goes_on(tmp_path):
    def some(steps, until):
        model = Line()
        run = Run(tmp_path, model, [{"params": [model.a], "lr": 0.1}], Schedule(steps, warmup=1), save_minutes=0, keep=("b",))
        start = run.step
        while run.step < until:
            run.learn((run.bare.a - 1).pow(2).sum(), {})
        return start, run

    _, first = some(100, 7)
    values, notes = averaged(first.checkpoint)
    assert notes["step"] == 7 and set(values) == {"a", "b"}
    assert weights.write_small(first.checkpoint, tmp_path / "small", "scenes")["step"] == "7"
    small = weights.read_weights(tmp_path / "small" / "scenes.safetensors")
    assert torch.allclose(small["a"], values["a"], atol=1e-3) and torch.equal(small["b"], torch.ones(2))
    start, second = some(100, 8)
    assert start == 7 and second.average.count == 8
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= 1


def test_processes_on_cpus_know_of_each_other(tmp_path):
    """Two of them must draw different views and step together, or the second is heat alone."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from groma_training.run import Run, Schedule, process_count, start_torch\n"
        "start_torch(1, 0)\n"
        "model = torch.nn.Linear(1, 1, bias=False)\n"
        "torch.nn.init.zeros_(model.weight)\n"
        "run = Run(sys.argv[1], model, [{'params': list(model.parameters()), 'lr': 0.1}], Schedule(1, 1))\n"
        "rank, drawn = run.accelerator.process_index, run.rng.random()\n"
        "run.learn(run.model(torch.full((1, 1), float(rank))).sum(), {})\n"
        "gradient = float(run.optimizer.state_dict()['state'][0]['exp_avg']) / (1 - 0.9)\n"
        "open(f'{sys.argv[1]}/{rank}', 'w').write(f'{process_count()} {drawn} {gradient}')\n")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
              "MASTER_ADDR": "localhost", "MASTER_PORT": port, "PYTHONPATH": str(Path(__file__).parents[1])}
    both = [subprocess.Popen([sys.executable, str(script), str(tmp_path)], env={**shared, "RANK": rank, "LOCAL_RANK": rank})
            for rank in "01"]
    assert [process.wait(120) for process in both] == [0, 0]
    one, two = ((tmp_path / name).read_text().split() for name in "01")
    assert one[0] == two[0] == "2"
    assert one[1] != two[1]
    assert float(one[2]) == float(two[2]) == pytest.approx(0.5)  # the mean of 0 and 1


def test_schedule_warms_up_stays_flat_and_comes_down():
    s = Schedule(100, warmup=10, decay_from=0.6, floor=0.1)
    assert s.factor(0) == pytest.approx(0.1) and s.factor(30) == s.factor(60) == 1
    assert s.factor(80) == pytest.approx(0.55, abs=0.01) and s.factor(100) == pytest.approx(0.1)
    assert random.Random("a-0-0").random() == random.Random("a-0-0").random()


def test_epochs_become_steps_for_any_number_of_processes():
    assert plan(5, 0, 100, 0, 6, 1, 2) == (5, 2)
    assert plan(0, 2, 1000, 128, 16, 8, 1) == (16, 1)
    assert plan(0, 2, 1000, 128, 16, 1, 1) == (16, 8)
    with pytest.raises(ValueError, match="does not divide"):
        plan(0, 2, 1000, 128, 16, 3, 1)


def test_scenes_follow_what_is_learnt():
    material = Material.__new__(Material)
    material.most, material.right = 12.0, 0.7
    sizes = []
    for right in [1.0] * 250 + [0.3] * 400:
        material.adapt(right)
        sizes.append(material.most)
    assert sizes[0] == 12 and sizes[249] == 60 and sizes[-1] == 6


def test_regions_know_what_is_certain(toy_config):
    """A region that no box fits shows nothing only where all was searched for."""
    photo = Photo("a", "", 100, 100, [Object((0, 0, 50, 50), "dog")], exhaustive=True, label_set="coco-80")
    v = View(photo, torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([[0.25, 0.25, 0.5, 0.5]]), [0],
             torch.tensor([[0.9, 0.1, 0.2, 0.2]]))
    regions = torch.tensor([[0.25, 0.25, 0.48, 0.5], [0.35, 0.25, 0.4, 0.5], [0.8, 0.8, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]])
    assert scene_of(v, regions, ("dog",))[1].tolist() == [0, 0, NOTHING, UNKNOWN]
    v.photo.label_set = "voc-20"
    assert scene_of(v, regions, ("dog",))[1].tolist() == [0, 0, UNKNOWN, UNKNOWN]
    far = torch.tensor([[0.45, 0.25, 0.5, 0.5]])
    v.photo.label_set = "coco-80"
    assert scene_of(v, far, ("dog",))[1].tolist() == [UNKNOWN], "neither the dog nor nothing"


def test_annotated_boxes_are_never_crowded_out():
    v = View(Photo("a", "", 100, 100), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.tensor([[0.95, 0.95, 0.05, 0.05]]), [0],
             torch.zeros(0, 4))
    grid = torch.stack(torch.meshgrid(torch.linspace(0.05, 0.85, 10), torch.linspace(0.05, 0.85, 10), indexing="ij"), -1)
    proposed = torch.cat([grid.reshape(-1, 2), torch.full((100, 2), 0.05)], 1)
    kept = choose_regions(proposed, torch.linspace(1, 0.5, 100), v, 100, 0.6, random.Random(0))
    assert boxes.iou_matrix(boxes.corners(v.boxes), boxes.corners(kept)).max() > 0.5


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_the_proposer_reads_frozen_states_too(toy_config, toy_tokenizer, trained):
    """However many blocks are trained, the mean is over the same states."""
    layers = toy_config.vision.num_hidden_layers
    table = torch.randn(toy_config.llm.vocab_size, toy_config.llm.hidden_size)
    nouns = Nouns(["dog", "cat"], table, toy_tokenizer)
    stage = Stage1.__new__(Stage1)
    nn.Module.__init__(stage)
    stage.perceiver, stage.cut, stage.nouns = Groma(toy_config).perceiver, layers - trained, nouns
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    want = stage.perceiver.vis_encoder(to_input(pixels))
    got = stage.states(pixels)
    count = min(len(want), 4)
    near = 1e-5 if half_type() == torch.float32 else 0.05  # trained blocks run in bf16 where the processor multiplies it
    assert all(torch.allclose(a.float(), b, atol=near) for a, b in zip(got[-count:], want[-count:], strict=True))


def test_a_views_own_proposals_are_regions_too(toy_config, toy_tokenizer):
    nouns = Nouns(["dog", "cat"], torch.randn(toy_config.llm.vocab_size, toy_config.llm.hidden_size), toy_tokenizer)
    g, stage = Groma(toy_config), Stage1.__new__(Stage1)
    nn.Module.__init__(stage)
    stage.perceiver, stage.region_encoder, stage.nouns, stage.cut = g.perceiver, g.region_encoder, nouns, 0
    stage.nms_thres = 0.6
    width = toy_config.vision.hidden_size
    stage.patch_norm, stage.patch_head = nn.LayerNorm(width), nn.Linear(width, 3)
    photo = Photo("a", "", 64, 64, [Object((8, 8, 32, 32), "cat")], exhaustive=True, label_set="coco-80")
    v = View(photo, torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), torch.tensor([[20, 20, 24, 24]]) / 64, [0],
             torch.zeros(0, 4))
    batch = collate([v, v], nouns.index, g.side, empty=2)
    for most in (0, 3):
        _, found, shown, _, _ = stage(batch.pixels, batch.regions, None, most)
        assert [len(f) <= most for f in found] == [True, True] and (most == 0) == (not sum(map(len, found)))
        assert len(shown) == len(batch.labels_with(found, nouns.index)) == len(batch.labels) + sum(map(len, found))
    far = torch.tensor([[0.8, 0.8, 0.1, 0.1]])
    first = len(batch.regions[0])
    labels = batch.labels_with([v.boxes, far], nouns.index)
    assert labels[first] == nouns.index["cat"] and labels[-1] == NOTHING, "behind each view's other regions"


def test_views_are_remembered_with_their_truths(toy_config):
    perceiver = Groma(toy_config).perceiver.eval()
    replay = Replay(40, random.Random(0), SPARE_VIEWS)
    assert replay.draw(3) == [], "nothing to draw from"
    seen = perceiver.seen([torch.randn(50, 65, 32) for _ in range(4)]).detach()
    truths = [Truth(torch.full((1, 4), i / 50), torch.zeros(0, 4)) for i in range(50)]
    for one in zip(seen.half(), truths, strict=True):
        replay.add(one)
    drawn = replay.draw(5)
    assert len(replay.seen) == 40 and len(drawn) == 2, "a sixteenth of what is kept"
    for kept, truth in drawn:
        i = round(float(truth.boxes[0, 0]) * 50)
        assert torch.allclose(kept.float(), seen[i], atol=2e-3)
        again, first = (perceiver.propose_from(x).boxes for x in (kept[None].float(), seen[i : i + 1]))
        assert torch.allclose(again, first, atol=0.02)


def test_answers_are_told_apart_in_conversations(toy_tokenizer):
    writer = Writer(toy_tokenizer, "chatml")
    asked = [Exchange("<p>dog</p>", "<roi><r0></roi>", "all"), Exchange("<p>cat</p>", "<roi><r1></roi>", "one")]
    for packed in (conversation(writer, asked, 4, 2), pack(writer, writer.prefix(4, range(2)), asked)):
        learnt = packed.labels != IGNORE
        answers = packed.answers()[learnt]
        first = writer.special.index[0]
        assert [int(answers[packed.labels[learnt] == first + k]) for k in (0, 1)] == [0, 1]

