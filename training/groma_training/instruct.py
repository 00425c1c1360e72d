"""Stage 3: instruction tuning on whole conversations, LoRA or the full language model.

    accelerate launch -m groma_training.instruct --config configs/groma-s.toml --run RUNS/stage3

Unlike stage 2 a sample is one conversation of several turns about an image, each answer learnt, later turns reading the
earlier ones: find-all and REC turns, region descriptions, grounded captions, absent categories, and the turns of LLaVA,
ShareGPT4V and Groma Instruct.  Regions stand in random order, so that ids carry no habit.
"""

from __future__ import annotations

import random

import torch

from groma_training import proposer, templates
from groma_training.align import Material, start, teach
from groma_training.data.photo import read_jsonl
from groma_training.dialogue import Packed, Writer
from groma_training.language import Sample, scene_of, shown_by
from groma_training.run import start_torch
from groma_training.settings import stage_command
from groma_training.templates import Exchange
from groma_training.tokens import IGNORE
from groma_training.views import Augment, View, normalised, seen_boxes


class Conversations(Material):
    """Photos as conversations; ``packed`` then holds one branch that every later turn continues."""

    def photo(self, help_: float) -> Sample | None:
        s, g = self.s, self.speaker.groma
        chosen = next(self.stream)
        # What turns say may name left and right.
        v, regions, states = self.seen(chosen, Augment(flip=0.0 if chosen.turns else s.flip, colour=s.colour))
        scene, owner = scene_of(v, regions, self.sets.get(v.photo.label_set, ()))
        turns = spoken_turns(v, regions)
        asked = turns or templates.questions(scene, s.questions, self.rng)
        if not asked:
            return None
        images = (g.side // g.c.image_token_merge) ** 2
        packed = conversation(self.writer, asked, images, len(regions))
        return Sample(packed, regions, [e.kind for e in asked], v.pixels, states=states,
                      labels=proposer.labels_of(scene.labels, owner, self.nouns.index))


def spoken_turns(v: View, regions: torch.Tensor) -> list[Exchange]:
    """A photo's own turns, their boxes named by the regions that show them."""
    if not v.photo.turns:
        return []
    names = []
    for turn in v.photo.turns:
        rows, visible = seen_boxes(normalised(v.photo, turn.boxes), v.window, v.flipped)
        shown = iter(shown_by(rows, regions))
        names.append([next(shown) if seen else None for seen in visible.tolist()])
    return templates.conversation(v.photo.turns, names)


def conversation(writer: Writer, asked: list[Exchange], images: int, regions: int) -> Packed:
    """All turns in one branch: positions and attention run straight through."""
    ids, labels = writer.conversation(asked, images, range(regions))
    refers = [e.refer for e in asked if e.refer is not None]
    n = len(ids)
    return Packed(torch.tensor(ids), torch.arange(n), torch.full((n,), -1), torch.tensor([*labels[1:], IGNORE]),
                  torch.tensor(refers, dtype=torch.long))


def main() -> None:
    _, folder, s = stage_command(__doc__, "instruct")
    start_torch(s.threads, s.seed)
    photos = [p for path in s.photos for p in read_jsonl(path)]
    run, writer, nouns = start(s, folder, photos)
    material = Conversations(photos, run.bare, writer, nouns, s, random.Random(run.rng.random()))
    weight = proposer.rarity(photos, nouns).to(run.accelerator.device)
    run.notes = {"names": nouns.names}
    while not run.done:
        samples = []
        while len(samples) < s.batch:
            sample = material.photo(0.0)
            if sample is not None:
                samples.append(sample)
        teach(run, samples, nouns, weight, s)


if __name__ == "__main__":
    main()
