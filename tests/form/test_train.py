"""Training: the loss against a plain masked forward, invariants of the gradient, resume, hard stops."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from factform.errors import TrainingError
from factform.form.checkpoint import Check, alone
from factform.form.dataset import TrainingRow
from factform.form.train import (
    EncodedRow,
    TrainSettings,
    adapter_shapes,
    backward,
    batch_loss,
    batch_rows,
    check_rows,
    encode_rows,
    schedule,
    train,
)
from factform.ids import sha256_text
from factform.model.kvstore import BlockStore, Keep
from factform.model.llama import NoCache, forward, logits
from factform.model.lora import Adapter, new_adapter
from factform.model.reader import Reader
from factform.records import Chunk, Passage


def row(number: int, reader: Reader) -> EncodedRow:
    text = f"The monthly rent for unit {number} is 1,{number}80 euros."
    chunk = Chunk(f"c{number}", "d", "v", 0, len(text), text, sha256_text(text), "Lease")
    other = replace(chunk, id="other", text="The boiler must be serviced every 18 months." + " x" * number)
    made = TrainingRow(
        id=f"r{number}",
        question=f"Rent of unit {number}?",
        passages=(Passage("1", other), Passage("2", chunk)),
        output=f'{{"source": "2", "rent": "1{number}80"}}',
        output_object=None,
        answerable=True,
        origin="example",
    )
    return encode_rows([made], reader, "desk")[0]


def rows(reader: Reader, n: int = 6) -> list[EncodedRow]:
    return [row(i, reader) for i in range(1, n + 1)]


def adapter(reader: Reader, seed: int = 0, *, filled: bool = True) -> Adapter:
    config = reader.weights.config
    made = new_adapter(adapter_shapes(config), config.layers, rank=4, alpha=8, seed=seed, device=torch.device("cpu"))
    if filled:
        g = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for layer in made.layers:
                for pair in layer.values():
                    pair.b.copy_(torch.randn(pair.b.shape, generator=g) * 0.05)
    return made


def store(reader: Reader) -> BlockStore:
    return BlockStore(reader.weights, reader.store.model_key)


def gradients(made: Adapter) -> list[torch.Tensor]:
    return [t.grad.clone() for t in made.tensors().values() if t.grad is not None]


def test_loss_equals_a_masked_forward_over_the_whole_sequence(tiny: Reader) -> None:
    """With a fresh adapter the model is the base: one dense forward under the block mask must give the same loss."""
    total, count = 0.0, 0
    for item in rows(tiny, 3):
        ids = [t for block in item.blocks for t in block.tokens] + list(item.sequence)
        context = len(ids) - len(item.sequence)
        mask = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        at = 0
        for block in item.blocks:
            end = at + len(block.tokens)
            mask[at:end, at:end] = True
            at = end
        mask[at:] = True
        mask &= torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        with torch.inference_mode():
            hidden = forward(
                tiny.weights, torch.tensor([ids]), torch.arange(len(ids)), NoCache(), mask=mask[None, None]
            )
            scores = logits(tiny.weights, hidden)[0]
        first = context + item.prompt_length
        total += float(F.cross_entropy(scores[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum"))
        count += len(ids) - first
    fresh = adapter(tiny, filled=False)
    got = batch_loss(rows(tiny, 3), tiny.weights, fresh, store(tiny)).item()
    assert got == pytest.approx(total, rel=1e-4)
    assert count == sum(len(r.sequence) - r.prompt_length for r in rows(tiny, 3))


def test_splitting_a_batch_does_not_change_its_gradient(tiny: Reader) -> None:
    found = []
    for parts in (1, 2, 3, 6):
        made = adapter(tiny)
        loss = backward(rows(tiny), tiny.weights, made, store(tiny), parts)
        found.append((loss, gradients(made)))
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for a, b in zip(found[0][1], grads, strict=True):
            assert (a - b).norm() <= 1e-4 * a.norm()


def test_padding_and_neighbours_change_nothing(tiny: Reader) -> None:
    alone = sum(batch_loss([r], tiny.weights, adapter(tiny), store(tiny)).item() for r in rows(tiny))
    together = batch_loss(rows(tiny), tiny.weights, adapter(tiny), store(tiny)).item()
    assert together == pytest.approx(alone, rel=1e-5)


def test_loss_falls_and_the_answer_is_learnt(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=8, alpha=16, batch=3, steps=80, learning_rate=2e-2)
    result = train(rows(tiny, 3), tiny, settings, folder=tmp_path)
    assert result.losses[-1] < 0.2 * result.losses[0]
    tiny.set_adapter("desk@1", result.adapter)


def test_a_stopped_run_resumed_gives_the_same_adapter(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=8, save_every=3)
    whole = train(rows(tiny), tiny, settings, folder=tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop_at_five(progress: object) -> None:
        if progress.step == 5:  # type: ignore[attr-defined]
            raise Stopped

    with pytest.raises(Stopped):
        train(rows(tiny), tiny, settings, folder=tmp_path / "part", progress=stop_at_five)
    seen: list[int] = []
    again = train(rows(tiny), tiny, settings, folder=tmp_path / "part", progress=lambda p: seen.append(p.step))
    assert seen == [4, 5, 6, 7, 8]  # the checkpoint of step 3 was gone on from
    assert again.losses == pytest.approx(whole.losses, rel=1e-5)
    for a, b in zip(whole.adapter.tensors().values(), again.adapter.tensors().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_checkpoint_of_other_rows_or_settings_is_not_used(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=3)
    train(rows(tiny), tiny, settings, folder=tmp_path)
    seen: list[int] = []
    train(rows(tiny, 5), tiny, settings, folder=tmp_path, progress=lambda p: seen.append(p.step))
    assert seen == [1, 2, 3]


def test_a_checkpoint_of_another_base_model_of_the_same_shape_is_not_used(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=3)
    train(rows(tiny), tiny, settings, folder=tmp_path)
    kept = Keep(stored="float32")
    other = Reader(tiny.weights, tiny.tokenizer, tiny.chat, model="other", digest="other", keep=kept)
    seen: list[int] = []
    train(rows(other), other, settings, folder=tmp_path, progress=lambda p: seen.append(p.step))
    assert seen == [1, 2, 3]


def test_a_checkpoint_checked_otherwise_or_with_other_numbers_is_not_used(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=3)
    half = Reader(
        tiny.weights, tiny.tokenizer, tiny.chat, model=tiny.model, digest=tiny.digest, keep=Keep(stored="float16")
    )
    assert half.store.model_key != tiny.store.model_key
    for reader, checked, begun in ((tiny, "a", 0), (tiny, "a", 3), (tiny, "b", 0), (half, "b", 0), (half, "b", 3)):
        assert train(rows(reader), reader, settings, folder=tmp_path, checked=checked).begun == begun


@pytest.mark.parametrize("damage", ["meta", "tensors", "gone", "other"])
def test_a_torn_checkpoint_is_none(tiny: Reader, tmp_path: Path, damage: str) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=3)
    whole = train(rows(tiny), tiny, settings, folder=tmp_path)
    (tensors,) = tmp_path.glob("checkpoint-*.safetensors")
    meta = tmp_path / "checkpoint.json"
    if damage == "meta":
        meta.write_bytes(meta.read_bytes()[:40])
    elif damage == "tensors":
        tensors.write_bytes(b"")
    elif damage == "gone":
        tensors.unlink()
    else:
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "best_step": 3}))  # there are no such tensors
    again = train(rows(tiny), tiny, settings, folder=tmp_path)
    assert again.begun == 0
    assert again.losses == pytest.approx(whole.losses, rel=1e-5)


def test_two_processes_do_not_train_in_one_folder(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=3)
    with alone(tmp_path), pytest.raises(TrainingError, match="another process is training"):
        train(rows(tiny), tiny, settings, folder=tmp_path)


def test_the_best_check_decides_which_weights_are_kept(tiny: Reader, tmp_path: Path) -> None:
    scores = {2: 0.9, 4: 0.5, 6: 0.1}
    kept: dict[int, Adapter] = {}

    def check(made: Adapter, step: int) -> Check:
        kept[step] = Adapter(made.rank, made.alpha, made.layers)
        return Check(step, 1.0, scores[step], 4)

    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=6, check_every=2)
    result = train(rows(tiny), tiny, settings, folder=tmp_path, checker=check)
    assert result.best_step == 2
    assert not torch.equal(result.adapter.layers[0]["q"].b, kept[6].layers[0]["q"].b)


def test_a_loss_that_is_no_number_stops_the_run(tiny: Reader, tmp_path: Path) -> None:
    settings = TrainSettings(rank=4, alpha=8, batch=2, steps=30, learning_rate=1e30, clip=1e30)
    with pytest.raises(TrainingError, match="loss at step"):
        train(rows(tiny), tiny, settings, folder=tmp_path)


def test_rows_that_would_teach_nothing_or_no_end_are_refused(tiny: Reader) -> None:
    good = rows(tiny, 1)[0]
    with pytest.raises(TrainingError, match="no rows"):
        check_rows([], tiny.end_token)
    with pytest.raises(TrainingError, match="mask is empty"):
        check_rows([replace(good, prompt_length=len(good.sequence))], tiny.end_token)
    with pytest.raises(TrainingError, match="does not end"):
        check_rows([replace(good, sequence=good.sequence[:-1])], tiny.end_token)


def test_a_row_beyond_the_window_is_refused_not_cut(tiny: Reader) -> None:
    chunk = Chunk("c", "d", "v", 0, 4, "rent " * 4000, "", "Lease")
    long = TrainingRow("long", "Rent?", (Passage("1", chunk),), "{}", None, True, "example")
    with pytest.raises(TrainingError, match=r"row long: \d+ tokens do not fit the window of 2048"):
        encode_rows([long], tiny, "desk")


def test_every_epoch_sees_every_row_once_in_another_order(tiny: Reader) -> None:
    made, settings = rows(tiny), TrainSettings(batch=2, seed=3)
    epochs = [[r.id for step in range(e * 3, e * 3 + 3) for r in batch_rows(made, settings, step)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(r.id for r in made)
    assert epochs[0] != epochs[1]


def test_the_seed_decides_the_start(tiny: Reader) -> None:
    def start(seed: int) -> torch.Tensor:
        return adapter(tiny, seed, filled=False).layers[0]["q"].a.detach()

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [schedule(s, 100, 0.1) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(1 / 90)
    assert all(math.isfinite(r) and r > 0 for r in rates)
