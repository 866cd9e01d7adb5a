"""What survives a stop of a training run: adapter, optimiser, losses, checks and the weights to be gone back to.

Knows nothing of rows or of how a step is taken. Files are on disk before they are named, and what cannot be read is
no checkpoint: then training begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from factform.errors import TrainingError
from factform.model.lora import Adapter, LowRank

MARGIN = 0.1
"""How much better an earlier held-out check must have been for its weights to be gone back to."""

META = "checkpoint.json"


@dataclass(frozen=True)
class Check:
    """Held-out answers written under the mask: the share where it never had to keep the contract's form, the share of
    right leaves, n."""

    step: int
    valid: float
    score: float
    n: int


class State:
    """Adapter, optimiser moments, step, losses, checks and the best weights so far. `fingerprint` names all that the
    run depends on."""

    def __init__(self, adapter: Adapter, optimizer: torch.optim.Optimizer, fingerprint: str):
        self.adapter, self.optimizer, self.fingerprint = adapter, optimizer, fingerprint
        self.names = list(adapter.tensors())
        self.parameters = list(adapter.tensors().values())
        self.step = 0
        self.losses: list[float] = []
        self.checks: list[Check] = []
        self.best: Adapter | None = None
        self.best_step = 0

    def note(self, check: Check) -> None:
        """Keep the weights of the best check; a later one wins unless it is worse by more than MARGIN.

        Checks are small: between two of ten rows, a difference below that is noise, and the later weights saw more.
        """
        self.checks.append(check)
        if check.score >= max((c.score for c in self.checks[:-1]), default=-1.0) - MARGIN:
            self.best, self.best_step = _copy(self.adapter), check.step


def _copy(adapter: Adapter) -> Adapter:
    layers = tuple(
        {t: LowRank(p.a.detach().clone(), p.b.detach().clone(), p.scale) for t, p in layer.items()}
        for layer in adapter.layers
    )
    return Adapter(adapter.rank, adapter.alpha, layers)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` against other processes that train in it; TrainingError where one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                "another process is training this behavior with this seed: wait for it, or take another --seed"
            ) from None
        yield


def restore(state: State, folder: Path) -> None:
    """Go on from the checkpoint in `folder`, if there is one that can be read and was made by the same run."""
    try:
        saved = json.loads((folder / META).read_text("utf-8"))
        if saved["fingerprint"] == state.fingerprint:
            _take(state, saved, load_file(str(folder / saved["file"])))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return  # none there, or torn by a power cut: nothing of it was taken


def _take(state: State, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Everything is read before anything is changed."""
    kinds = ("adapter", "mean", "square", *(["best"] if saved["best_step"] else []))
    found = {kind: [tensors[f"{kind}.{name}"] for name in state.names] for kind in kinds}
    losses, checks, step = list(saved["losses"]), [Check(**c) for c in saved["checks"]], int(saved["step"])
    state.losses, state.checks, state.step, state.best_step = losses, checks, step, int(saved["best_step"])
    with torch.no_grad():
        for parameter, *(value, mean, square) in zip(
            state.parameters, found["adapter"], found["mean"], found["square"], strict=True
        ):
            parameter.copy_(value)
            state.optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": mean.clone(),
                "exp_avg_sq": square.clone(),
            }
    if state.best_step:
        state.best = _copy(state.adapter)
        for tensor, value in zip(state.best.tensors().values(), found["best"], strict=True):
            tensor.copy_(value)


def save(state: State, folder: Path) -> None:
    """Tensors first under a new name, then the small file that names them, replaced as a whole."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in zip(state.names, state.parameters, strict=True):
        moments = state.optimizer.state[parameter]
        tensors[f"adapter.{name}"] = parameter.detach().cpu().contiguous()
        tensors[f"mean.{name}"] = moments["exp_avg"].cpu().contiguous()
        tensors[f"square.{name}"] = moments["exp_avg_sq"].cpu().contiguous()
    if state.best is not None:
        tensors.update({f"best.{n}": t.cpu().contiguous() for n, t in state.best.tensors().items()})
    file = f"checkpoint-{state.step}.safetensors"
    save_file(tensors, str(folder / file))
    meta = {
        "fingerprint": state.fingerprint,
        "file": file,
        "step": state.step,
        "losses": state.losses,
        "checks": [asdict(c) for c in state.checks],
        "best_step": state.best_step,
    }
    temporary = folder / f"{META}.new"
    temporary.write_text(json.dumps(meta) + "\n", "utf-8")
    for path in (folder / file, temporary):
        with path.open("rb") as written:
            os.fsync(written.fileno())
    temporary.replace(folder / META)
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != file:
            old.unlink()
