"""One training run: accelerate, averaged weights, learning rate, checkpoints that any later session can resume.

A run is a folder: ``checkpoint.pt`` (replaced atomically), ``log.jsonl`` and ``pid``.  Stopping at any moment, by
SIGSTOP or for good, loses at most ``save_minutes`` of work.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn


def plan(steps: int, epochs: float, samples: int, global_batch: int, batch: int, processes: int, accumulate: int,
         ) -> tuple[int, int]:
    """-> optimiser steps and pieces accumulated to one.  With ``epochs`` both follow from the data and the global batch,
    whatever the number of processes; else they are as given."""
    if not epochs:
        return steps, accumulate
    if global_batch % (batch * processes):
        raise ValueError(f"a global batch of {global_batch} does not divide into {processes} processes of {batch}")
    return math.ceil(epochs * samples / global_batch), global_batch // (batch * processes)


@dataclass(frozen=True)
class Schedule:
    """Warm-up, a flat stretch, then a cosine down to ``floor``.  A longer run resumed from a shorter one goes on flat."""

    steps: int
    warmup: int = 50
    decay_from: float = 0.6
    floor: float = 0.03

    def factor(self, step: int) -> float:
        up = min(1.0, (step + 1) / max(1, self.warmup))
        done = step / max(1, self.steps)
        down = (done - self.decay_from) / max(1e-6, 1 - self.decay_from)
        if down <= 0:
            return up
        return up * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, down))))


class Average:
    """Exponential moving average of the trained weights; young averages forget faster; with ``decay`` 0 it is the weights
    themselves."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.decay, self.count = decay, 0
        self.values = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.count += 1
        keep = min(self.decay, (self.count + 1) / (self.count + 10))
        for n, p in model.named_parameters():
            if n in self.values:
                self.values[n].lerp_(p.detach(), 1 - keep)


class Run:
    """Holds what a stage's loop needs; the loop itself stays in the stage's module."""

    def __init__(self, folder: str | Path, model: nn.Module, groups: list[dict[str, Any]], schedule: Schedule, *,
                 seed: int = 0, average: float = 0.998, clip: float = 1.0, weight_decay: float = 0.01,
                 save_minutes: float = 4.0, accumulate: int = 1, keep: tuple[str, ...] = ()) -> None:
        """``keep``: prefixes of frozen tensors that belong to the result all the same."""
        self.keep = keep
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.accelerator = Accelerator(
            gradient_accumulation_steps=accumulate, mixed_precision="bf16" if half_type() == torch.bfloat16 else "no",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
        self.schedule, self.clip, self.save_minutes = schedule, clip, save_minutes
        self.seed = seed
        self.base_rates = [g["lr"] for g in groups]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=weight_decay)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average = Average(self.bare, average)
        self.step, self.notes, self._sums = 0, {}, defaultdict(list)
        self._saved = self._told = time.time()
        self._resume()
        self._told_step = self.step
        # Every process and every resumed stretch draws its own views.
        rank = self.accelerator.process_index
        self.rng = random.Random(f"{seed}-{self.step}-{rank}")
        torch.manual_seed(hash((seed, self.step, rank)) & 0x7FFFFFFF)

    @property
    def bare(self) -> nn.Module:
        """The model without any distributed wrapper."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def done(self) -> bool:
        return self.step >= self.schedule.steps

    def learn(self, loss: Tensor, report: dict[str, float]) -> None:
        """Backward and, at the last of the accumulated pieces, one optimiser step; ``report`` is averaged into the log."""
        factor = self.schedule.factor(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.accelerator.backward(loss)
        whole = self.accelerator.sync_gradients  # the last of ``accumulate`` pieces
        if whole:
            norm = self.accelerator.clip_grad_norm_(self.bare.parameters(), self.clip)
            report = {**report, "grad": float(norm)}
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for name, value in {"loss": float(loss.detach()), **report}.items():
            self._sums[name].append(value)
        if not whole:
            return
        self.average.update(self.bare)
        self.step += 1
        if time.time() - self._saved > 60 * self.save_minutes or self.done:
            self.save()

    def tell(self, every: int = 25) -> None:
        """Every so many steps one line of averages."""
        if self.step % every or self.step == self._told_step:
            return
        row = {k: round(sum(v) / len(v), 4) for k, v in self._sums.items()}
        row |= {"step": self.step, "seconds": round(time.time() - self._told)}
        self._told, self._told_step = time.time(), self.step
        self._sums.clear()
        self.log(row)

    def log(self, row: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            line = json.dumps(row)
            print(line, flush=True)
            with open(self.folder / "log.jsonl", "a") as out:
                out.write(line + "\n")

    def trained(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in self.bare.named_parameters() if p.requires_grad}

    def frozen(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in self.bare.named_parameters() if self.keep and n.startswith(self.keep)}

    def save(self) -> None:
        self._saved = time.time()
        if not self.accelerator.is_main_process:
            return
        part = self.checkpoint.with_suffix(".part")
        torch.save({"step": self.step, "seed": self.seed, "model": self.trained(), "average": self.average.values,
                    "count": self.average.count, "optimizer": self.optimizer.state_dict(), "notes": self.notes,
                    "frozen": self.frozen()}, part)
        part.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        missing, unexpected = self.bare.load_state_dict(saved["model"], strict=False)
        self.bare.load_state_dict(saved.get("frozen", {}), strict=False)
        lost = set(self.average.values) & set(missing)
        if lost or unexpected:
            raise ValueError(f"{self.checkpoint} does not fit this model: lacks {sorted(lost)[:3]}, "
                             f"has unknown {sorted(unexpected)[:3]}")
        self.average.values = {n: v.to(self.accelerator.device) for n, v in saved["average"].items()}
        self.average.count, self.step, self.notes = saved["count"], saved["step"], saved["notes"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.log({"resumed": self.step})


def world() -> PartialState:
    """This process among all.  accelerate joins processes that train on CPUs (``ACCELERATE_USE_CPU=1``) only where it is
    told so at the first call; else each would believe itself alone and all draw the same views."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def fastest_device() -> torch.device:
    """This process's device, as accelerate will choose it."""
    return world().device


def half_type() -> torch.dtype:
    """bf16 where this process's device multiplies it, else f32: processors without such products emulate them slowly."""
    if fastest_device().type == "cpu":
        able = torch.cpu.get_capabilities()
        if not (able.get("amx_bf16") or able.get("avx512_bf16")):
            return torch.float32
    return torch.bfloat16


def half_context(device: torch.device) -> torch.autocast:
    """Products of ``half_type`` inside this context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=half_type() == torch.bfloat16)


def start_torch(threads: int, seed: int) -> None:
    """Threads, seed and the fastest f32 products of this processor."""
    torch.set_num_threads(threads)
    if half_type() == torch.bfloat16:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.manual_seed(seed)


def process_count() -> int:
    return world().num_processes


def averaged(checkpoint: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights of a run and its notes."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {**saved.get("frozen", {}), **saved["average"]}, {"step": saved["step"], "seed": saved["seed"], **saved["notes"]}
