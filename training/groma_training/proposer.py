"""Stage 1: class-agnostic detection with two score heads, and with it, where asked, the encoder's last blocks.

    accelerate launch -m groma_training.proposer --config configs/groma-s.toml --run RUNS/stage1

Upstream freezes its encoder.  groma-s may tune the last blocks (``encoder_from``): the only small base in reach knows
little about categories.  Then the region encoder and a per-patch classifier are taught along, so that the blocks learn
what things are and not only where.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from groma_training import bases, boxes, whiten
from groma_training.config import GromaConfig
from groma_training.data.mix import endless
from groma_training.data.photo import Photo, PhotoStore, read_jsonl
from groma_training.detection_loss import Truth, Weights, outside_crowds, proposal_loss
from groma_training.model.groma import PROPOSER_STATES, Perceiver
from groma_training.model.proposer import Proposals
from groma_training.model.region_encoder import RegionEncoder
from groma_training.model.select import nms
from groma_training.nouns import SHARPNESS, Nouns
from groma_training.replay import Replay
from groma_training.run import Run, Schedule, fastest_device, half_context, half_type, plan, process_count, start_torch
from groma_training.settings import Settings, stage_command
from groma_training.views import Augment, View, to_input, view
from groma_training.weights import read_weights

UNKNOWN, NOTHING = -1, -2
SMALLEST_BOX = 0.008  # of the view's side: thinner boxes are not taught
BACKGROUND_SHARE = {"coco-80": 1.0}  # lists that name fewer kinds of things are weaker witnesses of absence
OTHER_BACKGROUND_SHARE = 0.3
SPARE_VIEWS = 16  # seen views that are kept for each that is drawn
SHOWN_AT = 0.5  # a region shows an object from this IoU on
EMPTY_BELOW = 0.4  # and nothing of those that were searched for below this
NOTHING_WEIGHT = 0.4  # of a region that shows nothing, beside one that shows a thing: there are several times as many


class Views(IterableDataset):
    """An endless stream of augmented views, each process and worker with its own draw."""

    def __init__(self, photos: list[Photo], side: int, augment: Augment, seed: str, power: float = 0.0) -> None:
        self.photos, self.side, self.augment, self.seed, self.power = photos, side, augment, seed, power

    def __iter__(self):
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}-{worker.id if worker else 0}")
        store = PhotoStore()
        for photo in endless(self.photos, self.power, rng):
            yield view(photo, store, self.side, self.augment, rng, SMALLEST_BOX)


class Stage1(nn.Module):
    """Perceiver, region encoder and a patch classifier over one encoder pass.  Names below ``perceiver.`` and
    ``region_encoder.`` are official; ``patch_norm`` and ``patch_head`` are scaffolding and never exported."""

    def __init__(self, c: GromaConfig, nouns: Nouns, encoder_from: int, encoder_base: str = "") -> None:
        super().__init__()
        self.perceiver = Perceiver(c)
        self.region_encoder = RegionEncoder(c.region, c.vision.hidden_size, c.llm.hidden_size)
        self.patch_norm = nn.LayerNorm(c.vision.hidden_size)
        self.patch_head = nn.Linear(c.vision.hidden_size, len(nouns.names) + 1)
        self.nouns, self.cut, self.nms_thres = nouns, encoder_from, c.nms_thres
        self.perceiver.vis_encoder.load_state_dict(bases.encoder_of(encoder_base), strict=False)
        self.perceiver.vis_encoder.freeze(encoder_from)
        roi = self.region_encoder.roi_align
        with torch.no_grad():
            roi.updims.weight.copy_(nouns.directions(c.region.hidden_dims))
            roi.updims.bias.copy_(nouns.centre)
        for module in (roi.updims, roi.pos_embedd):  # the position branch is learnt with the language model
            module.requires_grad_(False)

    def half_trunk(self) -> None:
        """Frozen blocks in bf16 where the device has such products: three times as fast as f32."""
        encoder = self.perceiver.vis_encoder
        encoder.embeddings.to(half_type())
        encoder.encoder.layer[: self.cut].to(half_type())

    def states(self, pixels: Tensor) -> list[Tensor]:
        """u8 [B,3,S,S] -> the last states, [B,1+N,D] each: those of trained blocks, and as many frozen ones as are read."""
        encoder = self.perceiver.vis_encoder
        with torch.no_grad():
            frozen = encoder.trunk(to_input(pixels).to(encoder.embeddings.cls_token.dtype), self.cut, PROPOSER_STATES)
        with half_context(pixels.device):
            return [*frozen[:-1], *encoder.top(frozen[-1], self.cut)]

    @torch.no_grad()
    def best(self, out: Proposals, views: int, most: int) -> list[Tensor]:
        """The first views' best proposals after NMS, at most so many of each: regions as the language model will meet them."""
        if not most:
            return [out.boxes.new_zeros(0, 4)] * views
        found, score = out.boxes[:views].float(), out.scores[:views].float()
        return [b[nms(boxes.corners(b), s, self.nms_thres, 0.0, most)] for b, s in zip(found, score, strict=True)]

    def forward(self, pixels: Tensor, regions: list[Tensor], kept: Tensor | None = None, most: int = 0):
        """``kept`` [K,D,side,side]: what was seen of further views; ``most``: of a view's own best proposals -> proposals of
        B+K views, those of the B views that are regions too, what the views' regions show, proposals last [sum R,H], patch
        logits [B,N,C+1], what was seen of the views [B,D,side,side]."""
        states = self.states(pixels)
        patches = self.patch_head(self.patch_norm(states[-1][:, 1:]))
        seen = self.perceiver.seen(states)
        out = self.perceiver.propose_from(seen if kept is None else torch.cat([seen, kept.to(seen)]))
        found = self.best(out, len(pixels), most)
        shown = self.region_encoder.shows(states, [torch.cat(pair) for pair in zip(regions, found, strict=True)])
        return out, found, shown, patches.float(), seen.detach()


@dataclass
class Batch:
    pixels: Tensor
    truths: list[Truth]
    regions: list[Tensor]
    labels: Tensor  # of all regions: a category, UNKNOWN or NOTHING
    patches: Tensor  # [B,N]: a category, C for nothing, UNKNOWN
    views: list[View]

    def labels_with(self, found: list[Tensor], index: dict[str, int]) -> Tensor:
        """``labels`` with those of each view's own proposals [R,4] behind its other regions."""
        out = []
        for v, given, own in zip(self.views, self.labels.split([len(r) for r in self.regions]), found, strict=True):
            out += [given, labels_of([v.photo.objects[i].label for i in v.kept], owners(v, own), index)]
        return torch.cat(out)


def jitter(b: Tensor, amount: float) -> Tensor:
    """Centre form [N,4] moved and scaled at random, kept inside the image."""
    noise = torch.randn(len(b), 4) * amount
    moved = torch.cat([b[:, :2] + noise[:, :2] * b[:, 2:], b[:, 2:] * noise[:, 2:].exp()], 1)
    out = boxes.centres(boxes.corners(moved).clamp(0, 1))
    return torch.cat([out[:, :2], out[:, 2:].clamp(min=0.01)], 1)


def empty_regions(truth: Tensor, crowds: Tensor, count: int) -> Tensor:
    """Random boxes that overlap no object by 0.3 or more and do not lie in a crowd."""
    size = torch.rand(count, 2) ** 1.5 * 0.6 + 0.03
    some = torch.cat([size / 2 + torch.rand(count, 2) * (1 - size), size], 1)
    if len(truth):
        near = jitter(truth[torch.randint(len(truth), (max(1, count // 2),))], 0.35)
        some = torch.cat([some, near])
        some = some[boxes.iou_matrix(boxes.corners(some), boxes.corners(truth)).max(1).values < 0.3]
    return some[outside_crowds(some, crowds) > 0]


def names_all(photo: Photo) -> bool:
    """Whether what is not annotated is nothing: of the lists that name few kinds only COCO's is long enough to say so."""
    return photo.exhaustive and photo.label_set == "coco-80"


def owners(v: View, regions: Tensor) -> Tensor:
    """What each region [R,4] shows: the place of one of the view's objects, NOTHING or UNKNOWN."""
    owner = torch.full((len(regions),), NOTHING if names_all(v.photo) else UNKNOWN)
    owner[outside_crowds(regions, v.crowds) == 0] = UNKNOWN
    if not len(v.boxes) or not len(regions):
        return owner
    best, of = boxes.iou_matrix(boxes.corners(v.boxes), boxes.corners(regions)).nan_to_num(0).max(0)
    return torch.where(best >= SHOWN_AT, of, torch.where(best >= EMPTY_BELOW, UNKNOWN, owner))


def labels_of(names: Sequence[str], owner: Tensor, index: dict[str, int]) -> Tensor:
    """``owners`` as categories, [R]; names: of the view's objects."""
    return torch.tensor([index.get(names[i], UNKNOWN) if i >= 0 else i for i in owner.tolist()], dtype=torch.long)


def patch_targets(v: View, labels: Tensor, side: int, nothing: int) -> Tensor:
    """The category of the smallest box that covers each patch's centre, [side*side]; of crowds it is not known."""
    out = torch.full((side, side), nothing if names_all(v.photo) else UNKNOWN)
    centre = (torch.arange(side) + 0.5) / side
    objects = sorted(zip(v.boxes.tolist(), labels.tolist(), strict=True), key=lambda x: -x[0][2] * x[0][3])
    for b, label in [*((b, UNKNOWN) for b in v.crowds.tolist()), *objects]:
        rows = (centre >= b[1] - b[3] / 2) & (centre <= b[1] + b[3] / 2)
        columns = (centre >= b[0] - b[2] / 2) & (centre <= b[0] + b[2] / 2)
        out[rows[:, None] & columns[None]] = label
    return out.flatten()


def collate(views: list[View], nouns_index: dict[str, int], side: int, most: int = 24, empty: int = 6) -> Batch:
    truths, regions, labels, patches = [], [], [], []
    for v in views:
        share = BACKGROUND_SHARE.get(v.photo.label_set, OTHER_BACKGROUND_SHARE) if v.photo.exhaustive else 0.0
        truths.append(Truth(v.boxes, v.crowds, share))
        known = torch.tensor([nouns_index.get(v.photo.objects[i].label, UNKNOWN) for i in v.kept], dtype=torch.long)
        some = torch.randperm(len(v.boxes))[:most]
        nothing = empty_regions(v.boxes, v.crowds, empty) if names_all(v.photo) else v.boxes[:0]
        regions.append(torch.cat([jitter(v.boxes[some], 0.06), nothing]))
        labels.append(torch.cat([known[some], torch.full((len(nothing),), NOTHING)]))
        patches.append(patch_targets(v, known, side, len(nouns_index)))
    return Batch(torch.stack([v.pixels for v in views]), truths, regions, torch.cat(labels), torch.stack(patches), views)


def rarity(photos: list[Photo], nouns: Nouns, power: float = 0.25) -> Tensor:
    """Weights [C] that lift rare categories, at most fourfold.  The gate counts every box alike, so a little is enough."""
    seen = Counter(o.label for p in photos for o in p.objects if not o.iscrowd)
    count = torch.tensor([1.0 + seen[name] for name in nouns.names])
    return ((count.mean() / count) ** power).clamp(max=4)


def region_loss(shown: Tensor, labels: Tensor, nouns: Nouns, weight: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Regions must lie at their noun's vector, nearer than to any other and to zero, where those that show nothing lie.
    -> loss; how many things are named rightly (``right``), and how many regions rightly show something or nothing."""
    told = labels != UNKNOWN
    if not told.any():
        return shown.sum() * 0, {}
    every, label = nouns.choices(shown[told]), labels[told]
    distance, nothing = every[:, :-1], every[:, -1]
    place = torch.where(label == NOTHING, distance.shape[1], label)
    loss = F.cross_entropy(-SHARPNESS * every, place, weight=torch.cat([weight, weight.new_tensor([NOTHING_WEIGHT])]))
    known = label >= 0
    report = {}
    if known.any():
        loss = loss + 0.5 * distance[known].gather(1, label[known, None]).mean()
        report["right"] = float((distance[known].argmin(1) == label[known]).float().mean())
        report["thing"] = float((every[known].argmin(1) < distance.shape[1]).float().mean())
    if not known.all():
        loss = loss + 0.2 * nothing[~known].mean()
        report["empty"] = float((every[~known].argmin(1) == distance.shape[1]).float().mean())
    return loss, report


def patch_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy over the patches whose content is known; "nothing" counts little, there is so much of it."""
    weight = torch.cat([weight, weight.new_tensor([0.15])])
    known = target != UNKNOWN
    return F.cross_entropy(logits[known], target[known], weight=weight) if known.any() else logits.sum() * 0


def ridge_start(model: Stage1, photos: list[Photo], nouns: Nouns, c: GromaConfig, s: Settings) -> float:
    """``whiten.ridge_start`` over ``s.start_photos`` plain views."""
    stream = iter(Views(photos, c.image_size, Augment(flip=0.5), f"start-{s.seed}"))
    weight, batches = rarity(photos, nouns), []
    for _ in range(s.start_photos):
        batches.append((collate([next(stream)], nouns.index, c.side), weight))
    return whiten.ridge_start(model, batches)


def resized(c: GromaConfig, image_size: int) -> GromaConfig:
    """The same model for views of another size; region boxes always lie on 448 pixels, so strides make up for it."""
    strides = tuple(x * c.image_size / image_size for x in c.region.featmap_strides)
    return replace(c, image_size=image_size, region=replace(c.region, featmap_strides=strides))


def startable(model: Stage1) -> set[str]:
    """What a start may set: all that is trained, the encoder (an earlier run may have tuned it), and the projection into the
    decoder's space."""
    named = model.named_parameters()
    return {n for n, p in named if p.requires_grad or ".vis_encoder." in n or ".updims." in n}


def parameter_groups(model: Stage1, s: Settings) -> list[dict]:
    """Blocks of the encoder, the region encoder (wide fan-in, a solved start) and sampling offsets learn more slowly than
    the proposer."""
    encoder, region, offsets, rest = [], [], [], []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if ".vis_encoder." in name:
            encoder.append(p)
        elif name.startswith("region_encoder."):
            region.append(p)
        else:
            (offsets if "sampling_offsets" in name else rest).append(p)
    groups = [(encoder, s.encoder_lr), (region, s.region_lr), (offsets, s.lr * 0.2), (rest, s.lr)]
    return [{"params": p, "lr": lr} for p, lr in groups if p]


def main() -> None:
    parser, folder, s = stage_command(__doc__, "proposer")
    start_torch(s.threads, s.seed)
    c = GromaConfig.load(s.model)
    if s.replay and s.encoder_from < c.vision.num_hidden_layers:
        parser.error("replay: what was seen is kept of a frozen encoder only (encoder_from)")
    if s.replay >= s.batch:
        parser.error("replay: a batch has new views too")
    c = resized(c, s.image_size or c.image_size)
    photos = [p for path in s.photos for p in read_jsonl(path)]
    table = bases.decoder_of(s.decoder_base)["llm.model.embed_tokens.weight"]
    nouns = Nouns(sorted({o.label for p in photos for o in p.objects}), table, bases.tokenizer_of(s.decoder_base))
    model = Stage1(c, nouns, s.encoder_from, s.encoder_base)
    augment = Augment(s.crop, tuple(s.crop_side), s.flip, s.colour, s.grey)
    model.half_trunk()
    model.to(fastest_device())
    if s.start:
        for path in s.start:
            model.load_state_dict({k: v for k, v in read_weights(path).items() if k in startable(model)}, strict=False)
    elif not (folder / "checkpoint.pt").exists():
        whiten.start(model, photos, c)
        if s.region_weight:  # upstream's stage 1 has no region encoder, and its width is beyond ridge regression
            print("regions named rightly after the ridge start:", ridge_start(model, photos, nouns, c, s), flush=True)
    steps, accumulate = plan(s.steps, s.epochs, len(photos), s.global_batch, s.batch, process_count(), s.accumulate)
    run = Run(folder, model, parameter_groups(model, s), Schedule(steps, s.warmup), seed=s.seed,
              average=s.average, save_minutes=s.save_minutes, accumulate=accumulate,
              keep=("region_encoder.roi_align.updims.",))
    run.notes = {"names": nouns.names}
    device = run.accelerator.device
    weight, weights = rarity(photos, nouns).to(device), Weights(s.score_weight, s.l1_weight, s.giou_weight)
    stream = Views(photos, c.image_size, augment, f"{s.seed}-{run.step}-{run.accelerator.process_index}", s.photo_power)
    loader = DataLoader(stream, s.batch - s.replay, num_workers=s.workers, pin_memory=device.type == "cuda",
                        prefetch_factor=4 if s.workers else None,
                        collate_fn=lambda views: collate(views, nouns.index, c.side))
    run.log({"photos": len(photos), "trained": sum(p.numel() for p in model.parameters() if p.requires_grad)})
    batches = iter(loader)
    rng = random.Random(f"{s.seed}-{run.step}-{run.accelerator.process_index}")
    replay: Replay[tuple[Tensor, Truth]] = Replay(s.replay_views, rng, SPARE_VIEWS)
    while not run.done:
        batch = next(batches)
        drawn = replay.draw(s.replay)
        kept = torch.stack([seen for seen, _ in drawn]).to(device) if drawn else None
        every = [*batch.truths, *(truth for _, truth in drawn)]
        truths = [Truth(t.boxes.to(device), t.crowds.to(device), t.background) for t in every]
        with run.accelerator.accumulate(run.model):
            with run.accelerator.autocast():
                out, found, shown, patches, seen = run.model(batch.pixels.to(device), [r.to(device) for r in batch.regions],
                                                             kept, s.own_regions)
            if s.replay:
                for one in zip(seen.half().cpu(), batch.truths, strict=True):
                    replay.add(one)
            loss, report = proposal_loss(out, truths, weights)
            report["detection"] = float(loss.detach())
            labels = batch.labels_with([f.cpu() for f in found], nouns.index)
            region, named = region_loss(shown, labels.to(device), nouns, weight)
            patch = patch_loss(patches, batch.patches.to(device), weight)
            report |= {**named, "region": float(region.detach()), "patch": float(patch.detach())}
            run.learn(loss + s.region_weight * region + s.patch_weight * patch, report)
        run.tell()


if __name__ == "__main__":
    main()
