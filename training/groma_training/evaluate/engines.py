"""Two ways to ask the model: its torch modules, or the `groma` command line. Both speak pixels of the stored photo."""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from groma_training import bases, boxes, preprocess
from groma_training.data.photo import Photo, PhotoStore
from groma_training.dialogue import Writer
from groma_training.grounding import Segment, parse
from groma_training.model.groma import Groma, load_groma
from groma_training.model.select import nms, select
from groma_training.templates import Exchange
from groma_training.tokens import IGNORE
from groma_training.views import to_input


@dataclass
class Answer:
    """Segments as the grounding parser gives them; ``boxes`` of the regions they cite, corners in pixels."""

    segments: list[Segment]
    boxes: Tensor
    tokens: int = 0

    def cited(self) -> list[int]:
        """Every region that is cited, once, in order of citation."""
        return list(dict.fromkeys(r for s in self.segments for r in s.regions))


class Engine(Protocol):
    def proposals(self, photo: Photo, limit: int) -> tuple[Tensor, Tensor]:
        """The best ``limit`` boxes after NMS 0.6 without a threshold, [N,4] corners in pixels, and scores [N]."""

    def ask(self, photo: Photo, task: str, text: str, refer: Tensor) -> Answer:
        """task: detect, locate, caption, describe or ask; refer [U,4] corners in pixels."""


MAX_NEW_TOKENS = 64  # of both engines, or long answers could not agree
NO_BOXES = torch.zeros(0, 4)
WORDING = {"detect": "Locate all <p>{}</p> in this image.", "locate": "Locate <p>{}</p> in the image.",
           "caption": "Please briefly describe <roi><refer_box></roi><refer_feat>.",
           "describe": "[grounding]Please briefly summarize the content of this image.", "ask": "[grounding]{}"}


@dataclass
class Look:
    """What depends on the photo alone; proposals are made when first asked for."""

    states: list[Tensor]
    image: Tensor  # image tokens
    boxes: Tensor | None = None  # [Q,4] centre form
    scores: Tensor | None = None


@dataclass
class TorchEngine:
    """The model folder run by this package's modules, one photo at a time."""

    model: Groma
    tokenizer: Tokenizer
    device: str = "cpu"
    max_new_tokens: int = MAX_NEW_TOKENS
    store: PhotoStore = field(default_factory=PhotoStore)
    _last: tuple[str, Look] | None = None
    _prefix: tuple[str, object, int] | None = None  # photo, decoder cache, its length

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> TorchEngine:
        own = Path(folder) / "tokenizer.json"
        tokenizer = bases.tokenizer_of(str(folder)) if own.exists() else bases.tokenizer()
        return cls(load_groma(folder).to(device), tokenizer, device)

    def __post_init__(self) -> None:
        c = self.model.c
        self.writer = Writer(self.tokenizer, c.chat_template, [c.llm.bos_token_id] if c.chat_template == "vicuna" else ())

    @torch.no_grad()
    def look(self, photo: Photo) -> Look:
        if self._last and self._last[0] == photo.id:
            return self._last[1]
        rgb = np.asarray(self.store.open(photo))
        pixels = torch.from_numpy(preprocess.resize(rgb, self.model.c.image_size)).permute(2, 0, 1)
        states = self.model.perceiver.vis_encoder(to_input(pixels)[None].to(self.device))
        look = Look(states, self.model.image_tokens(states)[0])
        self._last = (photo.id, look)
        return look

    @torch.no_grad()
    def proposed(self, photo: Photo) -> Look:
        """``look`` with its proposals."""
        look = self.look(photo)
        if look.boxes is None:
            out = self.model.perceiver.propose(look.states)
            look.boxes, look.scores = out.boxes[0], out.scores[0]
        return look

    def proposals(self, photo: Photo, limit: int) -> tuple[Tensor, Tensor]:
        look = self.proposed(photo)
        keep = nms(boxes.corners(look.boxes), look.scores, 0.6, 0.0, limit)
        return in_pixels(look.boxes[keep], photo), look.scores[keep].cpu()

    def regions(self, photo: Photo, refer: Tensor) -> tuple[Tensor, Tensor]:
        """Kept regions [R,4] in centre form, and each user box's region."""
        c, look = self.model.c, self.proposed(photo)
        size = torch.tensor([photo.width, photo.height] * 2, dtype=torch.float32)
        own = boxes.centres(refer.reshape(-1, 4) / size).to(look.boxes)
        _, kept, match = select(look.boxes, look.scores, own, nms_thres=c.nms_thres, score_thres=c.box_score_thres,
                                most=c.max_region_num)
        return kept, match

    @torch.no_grad()
    def shown(self, photo: Photo, centre: Tensor) -> Tensor:
        """What boxes [R,4] in centre form show, without where they lie: [R,H], in the decoder's input space less its centre."""
        return self.model.regions_show(self.look(photo).states, [centre]).cpu()

    @torch.no_grad()
    def embeds(self, photo: Photo, exchange: Exchange, kept: Tensor, match: Tensor) -> tuple[Tensor, list[int]]:
        """A question's prompt embeddings [T,H]; with an answer in the exchange, that too, and the labels."""
        look = self.look(photo)
        regions = self.model.region_tokens(look.states, [kept])
        question = exchange.question
        for region in match.tolist():
            question = question.replace("<refer_box>", f"<r{region}>", 1)
        ids = self.writer.prefix(len(look.image), range(len(kept)))
        labels = [IGNORE] * len(ids)
        if exchange.answer:
            more, targets = self.writer.exchange(Exchange(question, exchange.answer, exchange.kind))
        else:
            more = self.writer.ids(self.writer.template.ask(question))
            targets = [IGNORE] * len(more)
        x = self.model.prompt(torch.tensor(ids + more, device=self.device), self.writer.special, look.image, regions, match)
        return x, labels + targets

    @torch.no_grad()
    def ask(self, photo: Photo, task: str, text: str = "", refer: Tensor = NO_BOXES) -> Answer:
        kept, match = self.regions(photo, refer)
        x, _ = self.embeds(photo, Exchange(WORDING[task].format(text), "", task), kept, match)
        stop = self.model.c.llm.eos_token_id
        stop = set(stop) if isinstance(stop, list) else {stop}
        tokens, cache = [], None
        if not len(refer):  # regions are the same for every such question, and so is all before it
            start = self._read_prefix(photo, x)
            cache, x = self._prefix[1], x[start:]
        while len(tokens) < self.max_new_tokens:
            out = self.model.llm.model(inputs_embeds=x[None], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            tokens.append(int(self.model.logits(out.last_hidden_state[0, -1]).argmax()))
            if tokens[-1] in stop:
                break
            x = self.model.embed(torch.tensor(tokens[-1:], device=self.device))
        return Answer(parse(pieces(self.tokenizer, tokens), len(kept)), in_pixels(kept, photo), len(tokens))

    def _read_prefix(self, photo: Photo, x: Tensor) -> int:
        """Fills or shortens the decoder's cache to what stands before a question; returns its length."""
        if self._prefix and self._prefix[0] == photo.id:
            _, cache, length = self._prefix
            if cache.get_seq_length() > length:
                cache.crop(length - cache.get_seq_length())  # negative: so many tokens less
            return length
        length = len(self.writer.prefix(len(self.look(photo).image), range(len(self.regions(photo, NO_BOXES)[0]))))
        out = self.model.llm.model(inputs_embeds=x[None, :length], use_cache=True)
        self._prefix = (photo.id, out.past_key_values, length)
        return length

    @torch.no_grad()
    def surprise(self, photo: Photo, exchange: Exchange) -> tuple[float, int]:
        """Sum of negative log likelihoods of an answer's tokens, and their number."""
        kept, match = self.regions(photo, NO_BOXES)
        x, labels = self.embeds(photo, exchange, kept, match)
        hidden = self.model.llm.model(inputs_embeds=x[None]).last_hidden_state[0]
        target = torch.tensor(labels[1:], device=self.device)
        learnt = target != IGNORE
        logits = self.model.logits(hidden[:-1][learnt]).float()
        return float(torch.nn.functional.cross_entropy(logits, target[learnt], reduction="sum")), int(learnt.sum())


@dataclass
class CommandLineEngine:
    """The same questions through `groma … --json`; what it prints is already in pixels.

    Photos travel as PNG, decoded here: the engine's JPEG decoder is not Pillow's, and the few grey levels between them moved
    scores of groma-s by up to 0.035, against 0.001 on equal pixels (f16 pack, one photo).
    """

    binary: str
    model: str
    store: PhotoStore = field(default_factory=PhotoStore)
    options: list[str] = field(default_factory=list)
    _sent: tuple[str, bytes] | None = None

    def _run(self, command: str, photo: Photo, *arguments: str) -> dict:
        line = [self.binary, command, "-", *arguments, "--model", self.model, "--json", "--quiet", *self.options]
        if self._sent is None or self._sent[0] != photo.id:
            png = io.BytesIO()
            self.store.open(photo).save(png, "PNG", compress_level=1)
            self._sent = (photo.id, png.getvalue())
        done = subprocess.run(line, input=self._sent[1], capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)}: exit code {done.returncode}: {done.stderr.decode()[-500:]}")
        return json.loads(done.stdout)

    def proposals(self, photo: Photo, limit: int) -> tuple[Tensor, Tensor]:
        found = self._run("regions", photo, "--limit", str(limit), "--min-score", "0", "--nms", "0.6")["regions"]
        return (torch.tensor([r["box"] for r in found]).reshape(-1, 4), torch.tensor([r["score"] for r in found]))

    def ask(self, photo: Photo, task: str, text: str = "", refer: Tensor = NO_BOXES) -> Answer:
        marks = [f"--box={','.join(f'{v:.2f}' for v in box)}" for box in refer.tolist()]
        arguments = [text, *marks] if task in ("ask", "detect", "locate") else marks
        raw = self._run(task, photo, *arguments, "--max-tokens", str(MAX_NEW_TOKENS))
        table = torch.tensor([r["box"] for r in sorted(raw["regions"], key=lambda r: r["id"])]).reshape(-1, 4)
        segments = [Segment(s["text"], s["kind"] == "phrase", [r["id"] for r in s.get("regions", [])])
                    for s in raw["segments"]]
        return Answer(segments, table, len(raw["tokens"]))


def pieces(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    """Tokens as strings for the parser: special ones by name, runs of text decoded together."""
    special = {i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    out, run = [], []
    for token in [*tokens, None]:
        if token is not None and token not in special:
            run.append(token)
            continue
        if run:
            out.append(tokenizer.decode(run, skip_special_tokens=False))
            run = []
        if token is not None:
            out.append(tokenizer.id_to_token(token))
    return out


def in_pixels(b: Tensor, photo: Photo) -> Tensor:
    size = torch.tensor([photo.width, photo.height] * 2, dtype=torch.float32)
    return boxes.corners(b.cpu()) * size
