"""The region encoder's `flatten_linear` without gradients: ridge regression of nouns over many photos.

    python -m groma_training.solve --model models/groma-s --photos corpus.jsonl --count 1200 --state FILE --out FOLDER

Everything else of the model folder stays as it is.  Sums are saved every ``--every`` photos, so the same command goes on
where it stopped; with ``--held-out`` several strengths are compared on a part of the photos that the sums do not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from groma_training import bases, proposer
from groma_training.data.photo import PhotoStore, read_jsonl
from groma_training.model.encoder import patch_map
from groma_training.model.groma import load_groma
from groma_training.nouns import Nouns
from groma_training.proposer import NOTHING
from groma_training.run import half_type
from groma_training.views import Augment, to_input, view
from groma_training.whiten import Ridge

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--photos", required=True, type=Path)
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--check", type=int, default=100, help="photos kept out of the sums to choose the strength")
    parser.add_argument("--every", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    groma = load_groma(options.model)
    table = bases.decoder_tensors()["llm.model.embed_tokens.weight"]
    photos = [p for p in read_jsonl(options.photos) if p.exhaustive]
    random.Random(0).shuffle(photos)
    nouns = Nouns(sorted({o.label for p in photos for o in p.objects}), table, bases.tokenizer())
    share = proposer.rarity(photos, nouns)
    roi = groma.region_encoder.roi_align
    inverse = torch.linalg.pinv(roi.updims.weight)
    encoder = groma.perceiver.vis_encoder.to(half_type())
    ridge, done, checks = Ridge(*roi.flatten_linear.weight.shape[::-1]), 0, []
    if options.state.exists():
        saved = torch.load(options.state, weights_only=True)
        ridge.gram, ridge.cross, done, checks = saved["gram"], saved["cross"], saved["done"], saved["checks"]
    store, started = PhotoStore(), time.time()
    for i in range(done, min(len(photos), options.count + options.check)):
        checked = i < options.check
        v = view(photos[i], store, groma.c.image_size, Augment(flip=0.0 if checked else 0.5), random.Random(i), 0.008)
        batch = proposer.collate([v], nouns.index, groma.side, most=40, empty=0 if checked else 6)
        with torch.no_grad():
            states = encoder(to_input(v.pixels[None]).to(half_type()))[-len(groma.c.region.level_scales) :]
            maps = groma.region_encoder.mlvl_fuse([patch_map(s.float(), groma.side) for s in states])
            read = roi.read(maps, [v.boxes] if checked else batch.regions)
        if checked:
            label = torch.tensor([nouns.index[v.photo.objects[k].label] for k in v.kept], dtype=torch.long)
            checks.append((read.half(), label))
        else:
            known = batch.labels >= 0
            keep = known | (batch.labels == NOTHING)
            noun = torch.where(known[:, None], nouns.vectors[batch.labels.clamp(min=0)], 0.0)
            weight = torch.where(known, share[batch.labels.clamp(min=0)], 0.3)
            ridge.add(read[keep], (noun @ inverse.T)[keep], weight[keep])
        if (i + 1) % options.every == 0:
            part = options.state.with_suffix(".part")
            torch.save({"gram": ridge.gram, "cross": ridge.cross, "done": i + 1, "checks": checks}, part)
            part.replace(options.state)
            print(json.dumps({"photos": i + 1, "seconds": round(time.time() - started)}), flush=True)
    read, label = torch.cat([c[0] for c in checks]).float(), torch.cat([c[1] for c in checks])
    best = (-1.0, 0.0)
    for strength in STRENGTHS:
        weight, bias = ridge.solve(strength)
        named = nouns.distances((read @ weight.T + bias) @ roi.updims.weight.T).argmin(1)
        right = float((named == label).float().mean())
        print(json.dumps({"strength": strength, "right": round(right, 4), "boxes": len(label)}), flush=True)
        best = max(best, (right, strength))
    weight, bias = ridge.solve(best[1])
    shutil.copytree(options.model, options.out, dirs_exist_ok=True)
    tensors = load_file(options.model / "model.safetensors")
    name = "region_encoder.roi_align.flatten_linear."
    tensors[name + "weight"], tensors[name + "bias"] = weight.half(), bias.half()
    (options.out / "model.safetensors").unlink()
    save_file(tensors, options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
