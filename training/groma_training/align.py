"""Stage 2: the region encoder, the bridge and the new tokens learn to speak the language model's language.

    accelerate launch -m groma_training.align --config configs/groma-s.toml --run RUNS/stage2

Three kinds of steps, mixed by ``text_share`` and faded by ``fade_steps``: text-only scenes (stage 0), photos whose region
tokens are clean noun vectors, and photos with the region encoder's own words.  The perceiver is frozen.  groma-7b trains
the adapters and new tokens alone, as the paper does; groma-s needs LoRA on its small decoder from here on.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import torch
from torch import nn

from groma_training import bases, proposer, scenes, templates, whiten
from groma_training.config import GromaConfig
from groma_training.data.labels import label_sets
from groma_training.data.mix import endless
from groma_training.data.photo import Photo, PhotoStore, read_jsonl
from groma_training.dialogue import Writer, pack
from groma_training.language import MOST_REGIONS, Sample, Speaker, Wordings, choose_regions, scene_as_shown, scene_of
from groma_training.model.groma import PROPOSER_STATES, Groma
from groma_training.model.select import select
from groma_training.nouns import Nouns
from groma_training.run import Run, Schedule, half_context, half_type, plan, process_count, start_torch
from groma_training.settings import Settings, stage_command
from groma_training.views import Augment, View, view
from groma_training.vocabulary import COLOURS, NOUNS
from groma_training.weights import read_weights

QUIET = 0.15  # of the position branch's usual length


class Material:
    """Draws samples: made-up scenes and photos."""

    def __init__(self, photos: list[Photo], speaker: Speaker, writer: Writer, nouns: Nouns, s: Settings,
                 rng: random.Random) -> None:
        self.speaker, self.writer, self.nouns, self.s, self.rng = speaker, writer, nouns, s, rng
        self.store, self.most, self.right = PhotoStore(), s.scene_regions, 0.7
        self.stream = endless(photos, s.photo_power, rng)
        self.sets = label_sets(photos)
        self.wordings = Wordings(photos, nouns.names, rng)
        self.memory: dict[tuple[str, bool], tuple[View, torch.Tensor, torch.Tensor]] = {}
        table = speaker.groma.llm.model.embed_tokens.weight.detach().float().cpu()
        words = Nouns([*NOUNS, *COLOURS], table, writer.tokenizer)
        self.words = dict(zip(words.names, words.vectors, strict=True))

    def made_up(self) -> Sample:
        made = scenes.make(int(self.most), self.rng)
        asked = templates.questions(made.scene(NOUNS), self.s.questions, self.rng)
        # Index tokens of every number are learnt from small scenes too: the first region may be called <r37>.
        first = self.rng.randint(0, 100 - len(made.names)) if self.rng.random() < 0.7 else 0
        asked = [_renumbered(e, first) for e in asked]
        prefix = self.writer.prefix(0, range(first, first + len(made.names)))
        noise = self.rng.choice([0.0, 0.3, 0.6, 0.9]) * min(1.0, self.most / 25)
        shown = scenes.tokens(made, self.words, noise)
        return Sample(pack(self.writer, prefix, asked), torch.tensor(made.boxes), [e.kind for e in asked], shown=shown)

    def photo(self, help_: float) -> Sample | None:
        s, g = self.s, self.speaker.groma
        v, regions, states = self.seen(next(self.stream), Augment(flip=s.flip, colour=s.colour))
        scene, owner = scene_of(v, regions, self.sets.get(v.photo.label_set, ()))
        labels = proposer.labels_of(scene.labels, owner, self.nouns.index)
        if s.taught_by == "regions":
            states = states or self._look(v)
            scene = scene_as_shown(scene, regions, self.speaker.beliefs(states, regions), self.nouns, self.wordings)
        asked = templates.questions(scene, s.questions, self.rng)
        if not asked:
            return None
        clean = torch.where((labels >= 0)[:, None], self.nouns.vectors[labels.clamp(min=0)],
                            torch.randn(len(labels), self.nouns.vectors.shape[1]) * 0.03)
        images = (g.side // g.c.image_token_merge) ** 2
        prefix = self.writer.prefix(images, range(len(regions)))
        return Sample(pack(self.writer, prefix, asked), regions, [e.kind for e in asked], v.pixels, clean, help_, states,
                      labels)

    def seen(self, photo: Photo, augment: Augment) -> tuple[View, torch.Tensor, list[torch.Tensor] | None]:
        """A view, its regions (the model's own proposals with the annotated boxes mixed in), and the encoder's last states.

        With ``remember`` views and proposals are computed once a photo and flip (a GPU would wait for them otherwise;
        600 KB a view); the states are not kept.
        """
        flipped = self.rng.random() < augment.flip
        key = (photo.id, flipped)
        if key not in self.memory:
            still = Augment(flip=float(flipped), colour=augment.colour)
            v = view(photo, self.store, self.speaker.groma.c.image_size, still, self.rng, 0.01)
            states = self._look(v)
            found = (v, *self._proposals(states))
            if self.s.remember:
                self.memory[key] = found
        else:
            found, states = self.memory[key], None
        v, box, score = found
        budget = self.rng.choice(self.s.regions)
        # A scene as shown needs no annotated boxes: regions are just those of an answer, in their order.
        if self.s.taught_by == "annotations":
            return v, choose_regions(box, score, v, budget, self.speaker.groma.c.nms_thres, self.rng), states
        return v, box[:budget], states

    def _look(self, v: View) -> list[torch.Tensor]:
        """The encoder's last states, [1+N,D] each: as many as anything reads."""
        g = self.speaker.groma
        states = self.speaker.look(v.pixels[None].to(g.new_input_embs.weight.device))
        read = max(PROPOSER_STATES, len(g.c.region.level_scales), -g.c.vis_output_layer)
        return [t[0] for t in states[-read:]]

    @torch.no_grad()
    def _proposals(self, states: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The regions [N,4] of an answer, up to as many as there are index tokens, and their scores: a decoder that has met
        more of them than an answer has goes on listing where there is nothing more."""
        with half_context(states[0].device):
            out = self.speaker.groma.perceiver.propose([t[None].float() for t in states])
        box, score = out.boxes[0].float().cpu(), out.scores[0].float().cpu()
        c = self.speaker.groma.c
        keep, kept, _ = select(box, score, box[:0], nms_thres=c.nms_thres, score_thres=c.box_score_thres, most=MOST_REGIONS)
        return kept, score[keep]

    def adapt(self, right: float) -> None:
        """Scenes grow while single lookups come out right and shrink while they do not: few regions are learnt long
        before many.  One step's share is of a handful of questions, so an average of the last dozens decides."""
        self.right += 0.04 * (right - self.right)
        if self.right > 0.75:
            self.most = min(60.0, self.most * 1.01)
        elif self.right < 0.65:
            self.most = max(6.0, self.most * 0.99)


def _renumbered(e: templates.Exchange, first: int) -> templates.Exchange:
    def shift(text: str) -> str:
        return re.sub(r"<r(\d+)>", lambda m: f"<r{int(m[1]) + first}>", text)

    return templates.Exchange(shift(e.question), shift(e.answer), e.kind, e.refer, e.weight)


@torch.no_grad()
def start_new_tokens(g: Groma, writer: Writer) -> None:
    """New tokens begin as words the language model already carries from a list into an answer: <rN> as one-token first
    names, brackets as brackets.  From random vectors a small model takes far longer to bind them."""
    table = g.llm.model.embed_tokens.weight.float()
    rows = g.new_input_embs.weight
    rows.copy_(table.mean(0) + 0.02 * torch.randn_like(rows))
    base = g.c.llm.vocab_size
    # A SentencePiece tokenizer puts the space before a word itself.
    spellings = (ids for n in FIRST_NAMES for ids in (writer.ids(" " + n), writer.ids(n)) if len(ids) == 1)
    singles = dict.fromkeys(ids[0] for ids in spellings)
    names = list(singles)[: len(writer.special.index)]
    if len(names) < len(writer.special.index):
        raise ValueError(f"only {len(names)} of the first names are single tokens; 100 are needed")
    for token, name in zip(writer.special.index, names, strict=True):
        rows[token - base] = table[name]
    for token, like in (("<roi>", " ["), ("</roi>", "]"), ("<p>", ' "'), ("</p>", '"'), ("[grounding]", " locate")):
        rows[writer.tokenizer.token_to_id(token) - base] = table[writer.ids(like)].mean(0)
    g.extra_lm_head.weight.copy_(rows)


FIRST_NAMES = (
    "John David Mary James Robert Michael William Richard Thomas Charles George Paul Mark Peter Daniel Joseph Henry Edward "
    "Andrew Stephen Kevin Brian Eric Adam Scott Jack Simon Frank Anthony Martin Christopher Matthew Joshua Benjamin Samuel "
    "Jonathan Patrick Alexander Ryan Jason Justin Nicholas Kenneth Steven Jeffrey Gary Timothy Jose Larry Dennis Walter "
    "Jerry Roger Arthur Albert Louis Philip Bruce Ralph Howard Carl Harry Fred Victor Alan Ray Sam Ben Tom Bob Jim Joe Mike "
    "Bill Dan Steve Chris Alex Max Leo Oscar Lucas Oliver Sarah Anna Emily Emma Alice Laura Maria Susan Karen Lisa Nancy "
    "Betty Helen Sandra Donna Carol Ruth Sharon Michelle Elizabeth Jennifer Jessica Amanda Melissa Rebecca Rachel Julia Kate "
    "Jane Lucy Grace Sophie Olivia Charlotte Victoria Catherine Margaret Barbara Patricia Linda Dorothy Virginia Diana Eva "
    "Clara Rose Lily"
).split()


def build(s: Settings, photos: list[Photo]) -> tuple[Speaker, Writer, Nouns]:
    """Groma from the bases, then from every earlier run or model folder that ``s.start`` names, in order."""
    c = GromaConfig.load(s.model)
    tokenizer, decoder = bases.tokenizer_of(s.decoder_base), bases.decoder_of(s.decoder_base)
    writer = Writer(tokenizer, c.chat_template, [c.llm.bos_token_id] if c.chat_template == "vicuna" else ())
    table = decoder["llm.model.embed_tokens.weight"]
    nouns = Nouns(sorted({o.label for p in photos for o in p.objects}), table, tokenizer)
    g = Groma(c)
    g.perceiver.vis_encoder.load_state_dict(bases.encoder_of(s.encoder_base), strict=False)
    g.load_state_dict(decoder, strict=False)
    if s.lora_rank:
        g.add_lora(s.lora_rank, c.lora_alpha or 2.0 * s.lora_rank)
    start_new_tokens(g, writer)
    start_regions(g, nouns)
    own, brought = dict(g.named_parameters()), set()
    with torch.no_grad():
        for path in s.start:
            values = read_weights(path)
            keep_what_regions_show(g, values)
            for name, value in values.items():
                if name in own:
                    own[name].copy_(value)
                    brought.add(name)
    if s.text_share < 1:
        if not any(name.startswith("perceiver.ddetr_transformer.") for name in brought):
            raise ValueError(f"nothing in start={s.start} has a proposer: name the checkpoint of stage 1")
        if "img_txt_bridge.0.weight" not in brought:
            whiten.bridge_start(g, photos, nouns.centre)
    return Speaker(g, writer.special, nouns), writer, nouns


@torch.no_grad()
def start_regions(g: Groma, nouns: Nouns) -> None:
    """What regions show begins in the directions of nouns, and where they lie as a whisper: a position branch at its usual
    length would drown the nouns."""
    roi = g.region_encoder.roi_align
    roi.updims.weight.copy_(nouns.directions(g.c.region.hidden_dims))
    roi.updims.bias.copy_(nouns.centre)
    roi.pos_embedd[-1].weight.fill_(QUIET)


def keep_what_regions_show(g: Groma, values: dict[str, torch.Tensor]) -> None:
    """Where ``values`` bring another ``updims`` but no ``flatten_linear``, the latter is turned so that the product of
    both, what regions show, stays as it was."""
    name = "region_encoder.roi_align."
    if name + "updims.weight" not in values or name + "flatten_linear.weight" in values:
        return
    roi = g.region_encoder.roi_align
    turn = torch.linalg.pinv(values[name + "updims.weight"].float()) @ roi.updims.weight
    roi.flatten_linear.weight.copy_(turn @ roi.flatten_linear.weight)
    roi.flatten_linear.bias.copy_(turn @ roi.flatten_linear.bias)


def parameter_groups(speaker: Speaker, s: Settings) -> list[dict]:
    """LoRA pairs at ``lr``, new tokens at half of it, region encoder and bridge at ``vision_lr`` (0: frozen)."""
    g = speaker.groma
    g.requires_grad_(False)
    lora = [p for n, p in g.llm.named_parameters() if "lora_" in n]
    full = list(g.llm.parameters()) if s.full_llm else []
    new = [g.new_input_embs.weight, g.extra_lm_head.weight]
    eyes = [*g.region_encoder.parameters(), *g.img_txt_bridge.parameters()]
    place = [*g.region_encoder.roi_align.pos_embedd.parameters(), *g.region_encoder.roi_align.updims.parameters()]
    if s.vision_lr <= 0:
        eyes = []
    elif s.place_lr > 0:
        eyes = [p for p in eyes if all(p is not q for q in place)]
    groups = [(full or lora, s.lr), (new, s.lr * 0.5), (eyes, s.vision_lr), (place if s.place_lr > 0 else [], s.place_lr)]
    for group, _ in groups:
        for p in group:
            p.requires_grad_(True)
    return [{"params": p, "lr": lr} for p, lr in groups if p]


def start(s: Settings, folder: Path, photos: list[Photo]) -> tuple[Run, Writer, Nouns]:
    """The run of a stage that teaches the language model: begun, or resumed from its folder."""
    speaker, writer, nouns = build(s, photos)
    groups = parameter_groups(speaker, s)
    half_frozen(speaker)
    steps, accumulate = plan(s.steps, s.epochs, len(photos), s.global_batch, s.batch, process_count(), s.accumulate)
    run = Run(folder, speaker, groups, Schedule(steps, s.warmup), seed=s.seed, average=s.average,
              weight_decay=0.0, save_minutes=s.save_minutes, accumulate=accumulate)
    return run, writer, nouns


def main() -> None:
    _, folder, s = stage_command(__doc__, "align", "scenes")
    start_torch(s.threads, s.seed)
    photos = [p for path in s.photos for p in read_jsonl(path)]
    run, writer, nouns = start(s, folder, photos)
    material = Material(photos, run.bare, writer, nouns, s, run.rng)
    material.most = run.notes.get("most", material.most)
    weight = proposer.rarity(photos, nouns).to(run.accelerator.device)
    while not run.done:
        help_ = max(0.0, 1 - run.step / s.fade_steps) if s.fade_steps else 0.0
        samples = []
        while len(samples) < s.batch:
            sample = material.made_up() if run.rng.random() < s.text_share else material.photo(help_)
            if sample is not None:
                samples.append(sample)
        if "one" in (report := teach(run, samples, nouns, weight, s)) and any(x.pixels is None for x in samples):
            material.adapt(report["one"])
        run.notes = {"most": material.most, "names": nouns.names}


def teach(run: Run, samples: list[Sample], nouns: Nouns, weight: torch.Tensor, s: Settings) -> dict[str, float]:
    """One piece: the language model's loss and, where the region encoder is trained, its category loss kept beside it
    (without that it forgets what things are)."""
    with run.accelerator.accumulate(run.model):
        with run.accelerator.autocast():
            loss, report, real = run.model(samples)
        report["regions"] = sum(len(x.regions) for x in samples) / len(samples)
        if real is not None and s.vision_lr > 0 and s.region_weight:
            labels = torch.cat([x.labels for x in samples if x.pixels is not None]).to(real.device)
            region, named = proposer.region_loss(real, labels, nouns, weight)
            loss, report = loss + s.region_weight * region, {**report, **named}
        run.learn(loss, report)
    run.tell()
    return report


def half_frozen(speaker: Speaker) -> None:
    """Frozen matrices in bf16 where the device multiplies it; what is trained stays in f32."""
    g = speaker.groma
    g.perceiver.vis_encoder.to(half_type())
    for module in g.llm.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own) and not isinstance(module, nn.LayerNorm):
            for name, p in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(p.to(half_type()), requires_grad=False))


if __name__ == "__main__":
    main()
