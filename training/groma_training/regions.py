"""Between stages 1 and 2: the region encoder learns what the model's own proposals show.

    accelerate launch -m groma_training.regions --config configs/groma-s.toml --run RUNS/regions

Stage 1 shows it annotated boxes and random empty ones.  What the language model will read are proposals: many lie beside or
across things, and one that shows nothing whole must look like nothing, or a lookup finds ten of what is there once.
Everything but the region encoder is frozen and no language model runs, so a step costs a hundredth of stage 2's a region;
the encoder's states are kept, for one look at a photo serves many steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from groma_training import align, boxes, proposer
from groma_training.config import GromaConfig
from groma_training.data.mix import endless
from groma_training.data.photo import Photo, PhotoStore, read_jsonl
from groma_training.language import scene_of
from groma_training.model.groma import PROPOSER_STATES, Groma
from groma_training.model.region_encoder import RegionEncoder
from groma_training.model.select import nms
from groma_training.nouns import Nouns
from groma_training.proposer import NOTHING
from groma_training.replay import Replay
from groma_training.run import Run, Schedule, plan, process_count, start_torch
from groma_training.settings import Settings, stage_command
from groma_training.views import Augment, View, to_input, view

MOST_PROPOSALS, MOST_EMPTY = 60, 24  # of a view, and of those that show nothing in one step


@dataclass
class Seen:
    """A view as the frozen parts see it, in main memory: the states that the region encoder reads [L,1+N,D], regions [R,4] in
    centre form, their categories [R] (or NOTHING, UNKNOWN).  2.4 MB at 448 pixels, a width of 384 and three levels."""

    states: Tensor
    regions: Tensor
    labels: Tensor

    def some(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """All regions that show a thing, and some of those that show none."""
        known, empty = ((keep).nonzero()[:, 0] for keep in (self.labels >= 0, self.labels == NOTHING))
        chosen = rng.sample(empty.tolist(), min(MOST_EMPTY, len(empty)))
        at = torch.cat([known, torch.tensor(chosen, dtype=torch.long)])
        return self.regions[at], self.labels[at]


class Shows(nn.Module):
    """The region encoder alone, under its official name."""

    def __init__(self, encoder: RegionEncoder) -> None:
        super().__init__()
        self.region_encoder = encoder
        for module in (encoder.roi_align.updims, encoder.roi_align.pos_embedd):  # theirs is the language model's space
            module.requires_grad_(False)

    def forward(self, states: Tensor, regions: list[Tensor]) -> Tensor:
        """states [L,B,1+N,D] -> ``RegionEncoder.shows``, [sum R,H]."""
        return self.region_encoder.shows(list(states), regions)


@torch.no_grad()
def look(g: Groma, v: View, nouns: Nouns) -> Seen:
    """The view's proposals beside its annotated boxes, slightly moved."""
    encoder = g.perceiver.vis_encoder
    token = encoder.embeddings.cls_token
    states = encoder(to_input(v.pixels[None].to(token.device)).to(token.dtype))[-PROPOSER_STATES:]
    out = g.perceiver.propose([s.float() for s in states])
    found, score = out.boxes[0].float().cpu(), out.scores[0].float().cpu()
    found = found[nms(boxes.corners(found), score, g.c.nms_thres, 0.0, MOST_PROPOSALS)]
    regions = torch.cat([found, proposer.jitter(v.boxes, 0.06)])
    levels = len(g.c.region.level_scales)
    scene, owner = scene_of(v, regions, ())
    return Seen(torch.cat(states[-levels:]).half().cpu(), regions, proposer.labels_of(scene.labels, owner, nouns.index))


def main() -> None:
    _, folder, s = stage_command(__doc__, "regions")
    start_torch(s.threads, s.seed)
    photos = [p for path in s.photos for p in read_jsonl(path)]
    train(folder, photos, s)


def train(folder: Path, photos: list[Photo], s: Settings) -> None:
    speaker, _, nouns = align.build(s, photos)
    g, c = speaker.groma.requires_grad_(False), GromaConfig.load(s.model)
    model = Shows(g.region_encoder.requires_grad_(True))
    steps, accumulate = plan(s.steps, s.epochs, len(photos), s.global_batch, s.batch, process_count(), s.accumulate)
    run = Run(folder, model, [{"params": [p for p in model.parameters() if p.requires_grad], "lr": s.lr}],
              Schedule(steps, s.warmup), seed=s.seed, average=s.average, save_minutes=s.save_minutes, accumulate=accumulate)
    run.notes = {"names": nouns.names}
    g.to(run.accelerator.device)
    weight, store = proposer.rarity(photos, nouns).to(run.accelerator.device), PhotoStore()
    augment = Augment(s.crop, tuple(s.crop_side), s.flip, s.colour, s.grey)
    stream, memory = endless(photos, s.photo_power, run.rng), Replay(s.replay_views, run.rng)
    while not run.done:
        fresh = [view(next(stream), store, c.image_size, augment, run.rng, proposer.SMALLEST_BOX)
                 for _ in range(s.batch - s.replay)]
        batch = [*(look(g, v, nouns) for v in fresh), *memory.draw(s.replay)]
        for one in batch[: len(fresh)]:
            memory.add(one)
        teach(run, batch, nouns, weight)


def teach(run: Run, batch: list[Seen], nouns: Nouns, weight: Tensor) -> dict[str, float]:
    """One piece: every region near its noun, those that show nothing near zero."""
    device = run.accelerator.device
    regions, labels = zip(*(one.some(run.rng) for one in batch), strict=True)
    states = torch.stack([one.states for one in batch], 1).to(device)  # f16: autocast to bf16 on a CPU refuses to stack it
    with run.accelerator.accumulate(run.model):
        with run.accelerator.autocast():
            shown = run.model(states, [r.to(device) for r in regions])
        loss, report = proposer.region_loss(shown, torch.cat(labels).to(device), nouns, weight)
        run.learn(loss, report)
    run.tell()
    return report


if __name__ == "__main__":
    main()
