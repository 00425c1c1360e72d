"""The modules against the golden folders: same names, same numbers, stage by stage.

The folders are looked for at ``tests/golden`` of the repository, or where ``GROMA_GOLDEN`` points.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from groma_training import preprocess
from groma_training.model.groma import load_groma
from groma_training.model.select import seeded_order, select
from groma_training.tokens import IGNORE, SpecialIds, expand
from groma_training.views import to_input

ROOT = Path(os.environ.get("GROMA_GOLDEN") or Path(__file__).resolve().parents[2] / "tests" / "golden")
FOLDERS = ["tiny", "tiny2", "tiny3"]
# The manifest's rule for a CPU in float32; torch's own kernels add their own rounding, so twice that is allowed.
OWN_ROUNDING = 2


class Golden:
    def __init__(self, name):
        self.folder = ROOT / name
        self.book = json.loads((self.folder / "cases.json").read_text())
        self.manifest = json.loads((self.folder / "manifest.json").read_text())["tensors"]
        self.expected = load_file(self.folder / "expected.safetensors")
        self.model = load_groma(self.folder, with_bases=False)
        self.special = SpecialIds.of(self.book["special"].get)
        self.compared = []

    def check(self, name, value):
        if name not in self.expected:
            return
        entry, want = self.manifest[name], self.expected[name]
        assert list(value.shape) == entry["shape"], f"{name}: expected shape {entry['shape']}, got {list(value.shape)}"
        if "slice" in entry:
            value = value[tuple(slice(*s) for s in entry["slice"])]
        self.compared.append(name)
        if entry.get("exact"):
            assert torch.equal(value.to(want.dtype), want), name
            return
        limit = OWN_ROUNDING * max(20 * entry["noise"], 1e-5 * entry["max_abs"])
        worst = float((value.float() - want).abs().max())
        assert worst <= limit, f"{name}: off by {worst:.2e}, allowed {limit:.2e}"

    @torch.no_grad()
    def look(self, key):
        """Everything that depends on the photo alone; returns states, boxes and scores."""
        m, c = self.model, self.model.c
        rgb = np.array(Image.open(self.folder / self.book["images"][key]))[..., :3]
        resized = torch.from_numpy(preprocess.resize(rgb, c.image_size))
        self.check(f"{key}/pre.resized", resized)
        pixels = to_input(resized.permute(2, 0, 1))[None]
        self.check(f"{key}/pre.pixels", pixels[0])
        states = m.perceiver.vis_encoder(pixels)
        for i, s in enumerate(states):
            self.check(f"{key}/vis.h{i}", s[0])
        self.check(f"{key}/bridge.tokens", m.image_tokens(states)[0])
        out = m.perceiver.propose(states, trace=True)
        for name, value in out.trace.items():
            self.check(f"{key}/{name}", value[0])
        last = out.layers[-1]
        for name, value in (("boxes", out.boxes), ("scores", out.scores), ("logit_coco", last.coco), ("logit_sa1b", last.sa1b)):
            self.check(f"{key}/det.{name}", value[0])
        fuse = m.region_encoder.mlvl_fuse
        maps = m.region_encoder.maps(states)
        for i, fmap in enumerate(fuse.project(maps)):
            self.check(f"{key}/reg.in{i}", fmap[0])
        for i, fmap in enumerate(fuse(maps)):
            self.check(f"{key}/reg.fused{i}", fmap[0])
        return states, out.boxes[0], out.scores[0]

    @torch.no_grad()
    def answer(self, case, states, boxes, scores):
        m, c, key = self.model, self.model.c, case["id"]
        refer = torch.tensor(case.get("refer_boxes", [])).reshape(-1, 4)
        keep, kept, match = select(boxes, scores, refer, nms_thres=c.nms_thres, most=c.max_region_num,
                                   score_thres=case.get("box_score_thres", c.box_score_thres))
        if "shuffle_seed" in case and len(kept) > 1:
            order = seeded_order(len(kept), case["shuffle_seed"])
            inverse = torch.tensor(order).argsort()
            keep, kept, match = keep[order], kept[order], inverse[match]
        assert keep.tolist() == case["expect"]["region_index"]
        assert match.tolist() == case["expect"]["match"]
        regions = m.region_tokens(states, [kept])
        self.check(f"{key}/reg.tokens", regions)
        ids, n = list(case["input_ids"]), 0
        for i, t in enumerate(ids):
            if t == self.special.refer_box:
                ids[i], n = self.special.index[int(match[n])], n + 1
        ids, _ = expand(ids, [IGNORE] * len(ids), (m.side // c.image_token_merge) ** 2, len(kept), self.special)
        assert ids == case["expect"]["expanded_ids"]
        x = m.prompt(torch.tensor(ids), self.special, m.image_tokens(states)[0], regions, match)
        self.check(f"{key}/llm.embeds", x)
        stop = case.get("eos_token_id", self.book["eos_token_id"])
        tokens, cache = [], None
        while len(tokens) < case["max_new_tokens"]:
            out = m.llm.model(inputs_embeds=x[None], past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, m.logits(out.last_hidden_state[0, -1])
            if not tokens:
                self.check(f"{key}/llm.logits", logits)
            tokens.append(int(logits.argmax()))
            if tokens[-1] in (stop if isinstance(stop, list) else [stop]):
                break
            x = m.embed(torch.tensor(tokens[-1:]))
        self.check(f"{key}/llm.logits_last", logits)
        assert tokens == case["expect"]["tokens"]


@pytest.mark.parametrize("name", FOLDERS)
def test_agrees_with_golden(name):
    if not (ROOT / name / "model.safetensors").exists():
        pytest.skip(f"no golden folder {ROOT / name}")
    golden = Golden(name)
    seen = {key: golden.look(key) for key in golden.book["images"]}
    for case in golden.book["cases"]:
        golden.answer(case, *seen[case["image"]])
    assert len(golden.compared) > 60
