"""Measures a model folder on held-out photos and writes the table into its model card.

    python -m groma_training.evaluate --model models/groma-s --photos heldout.jsonl [--card models/groma-s/MODEL_CARD.md]
    python -m groma_training.evaluate --groma target/release/groma --model models/groma-s --photos heldout.jsonl

The paper's benchmarks go the same way, given the data: RefCOCO/+/g as photos with phrases (reader "refcoco" of
``groma_training.data.gather``) with ``--only referring``, LVIS-Ground as photos with objects with ``--only lvis_ground``.
With ``--groma`` the same questions go through the Rust command line (what needs the inside of the model is then left
out); ``--only`` and ``--limit`` make it shorter, and the table says on how many photos each figure stands.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict
from pathlib import Path

import torch

from groma_training import bases
from groma_training.data.labels import label_sets
from groma_training.data.photo import read_jsonl
from groma_training.evaluate import held_out
from groma_training.evaluate.card import disagreements, table, write_part
from groma_training.evaluate.engines import CommandLineEngine, TorchEngine
from groma_training.files import write_text
from groma_training.nouns import Nouns

NAMED = ("region_category", "referring_by_regions", "detect_by_regions")  # by the nearest noun
INSIDE = (*NAMED, "caption_perplexity")
MEASURES = ("proposals", "region_category", "region_said", "referring", "referring_by_regions", "detect_all",
            "detect_by_regions", "captions", "caption_perplexity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", required=True, type=Path, help="JSONL of held-out photos")
    parser.add_argument("--groma", help="path of the command line; without it torch is used")
    parser.add_argument("--only", nargs="*", choices=(*MEASURES, "lvis_ground", "grammar"), default=list(MEASURES))
    parser.add_argument("--limit", type=int, help="measure on this many photos, drawn with a fixed seed")
    parser.add_argument("--card", type=Path, help="model card whose table is replaced")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--against", type=Path, help="figures of the other engine (its --out); fails where both differ")
    parser.add_argument("--tolerance", type=float, default=0.02, help="how far figures may lie apart, with --against")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photos = [p for p in read_jsonl(options.photos) if p.exhaustive]
    if options.limit:
        photos = random.Random(0).sample(photos, min(options.limit, len(photos)))
    if options.groma:
        engine = CommandLineEngine(options.groma, options.model)
    else:
        engine = TorchEngine.load(options.model, options.device)
    figures, started = [], time.time()
    for name in options.only:
        if name in INSIDE and options.groma:
            continue
        extra = [_nouns(photos)] if name in NAMED else []
        measured = getattr(held_out, name)(engine, photos, *extra)
        figures += measured
        print("\n".join(f.row() for f in measured), flush=True)
    through = f"`{options.groma}`" if options.groma else "torch, f32"
    text = table(figures, f"{len(photos)} held-out photos, through {through}, {time.time() - started:.0f} s")
    if options.out:
        write_text(options.out, json.dumps([asdict(f) for f in figures], indent=1))
    if options.card:
        write_part(options.card, "measured", text)
    if options.against and (apart := disagreements(figures, json.loads(options.against.read_text()), options.tolerance)):
        raise SystemExit("\n".join(["the engines disagree:", *apart]))


def _nouns(photos) -> Nouns:
    table = bases.decoder_tensors()["llm.model.embed_tokens.weight"]
    # All categories that were searched for, however few photos are measured: a shorter list would be easier.
    sets = label_sets(photos)
    return Nouns(sorted({name for p in photos for name in sets.get(p.label_set, ())}), table, bases.tokenizer())


if __name__ == "__main__":
    main()
