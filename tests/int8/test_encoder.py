"""Encoder layers of the compiled library against transformers, and what is beside a text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from factform.int8.build import native
from factform.int8.encoder import EncoderLayer, PackedEncoder, fits
from factform.int8.packed import Packed, pack
from factform.int8.quantize import quantize

pytestmark = pytest.mark.skipif(native().library is None, reason=native().reason)

LENGTHS = (300, 7, 1, 64, 90, 128, 5)
"""The first is longer than a chunk of keys and a block of rows. The short ones are read in one run, and there are runs
enough for three threads to take one after the other; alone, a text is read by all of them together."""


def rounded(linear: torch.nn.Linear) -> None:
    """Give `linear` weights that 8 bits hold exactly: what is then compared is the arithmetic."""
    small = quantize(linear.weight)
    linear.weight.copy_(small.values * small.scales[:, None])


def packed(*linears: torch.nn.Linear) -> Packed:
    return pack(quantize(torch.cat([x.weight for x in linears])), torch.cat([x.bias for x in linears]))


@pytest.fixture(scope="module")
def models() -> tuple[torch.nn.Module, PackedEncoder]:
    """Two layers of transformers' BERT with random weights, and ours with the same."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(2)
    config = transformers.BertConfig(
        hidden_size=96, num_hidden_layers=2, num_attention_heads=3, intermediate_size=160, max_position_embeddings=512
    )
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval().encoder
    layers = []
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            tensor.copy_(
                torch.randn_like(tensor) * (0.1 if "LayerNorm" in name else 0.3) + float("Norm.weight" in name)
            )
        for layer in theirs.layer:
            own, out = layer.attention.self, layer.attention.output
            maps = (own.query, own.key, own.value, out.dense, layer.intermediate.dense, layer.output.dense)
            for linear in maps:
                rounded(linear)
            norms = [torch.stack([n.weight, n.bias]) for n in (out.LayerNorm, layer.output.LayerNorm)]
            layers.append(EncoderLayer(*norms, packed(*maps[:3]), *(packed(linear) for linear in maps[3:])))
    return theirs, PackedEncoder(tuple(layers), 3, config.layer_norm_eps, digits=2)


def texts() -> list[Tensor]:
    g = torch.Generator().manual_seed(5)
    return [torch.randn(length, 96, generator=g) for length in LENGTHS]


def off(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


@torch.inference_mode()
@pytest.mark.parametrize(("digits", "near"), [(2, 6e-3), (1, 0.16)])
def test_states_are_those_of_transformers(
    models: tuple[torch.nn.Module, PackedEncoder], digits: int, near: float
) -> None:
    theirs, ours = models
    together = replace(ours, digits=digits).read(torch.cat(texts()), LENGTHS)
    for text, states in zip(texts(), together.split(LENGTHS), strict=True):
        reference = theirs(text[None])[0][0]
        assert off(states, reference) < near
        assert off(text, reference) > 0.5


@torch.inference_mode()
def test_a_text_has_the_bits_it_has_alone_whatever_the_threads(models: tuple[torch.nn.Module, PackedEncoder]) -> None:
    _, ours = models
    together = ours.read(torch.cat(texts()), LENGTHS).split(LENGTHS)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            alone = [ours.read(text, [len(text)]) for text in texts()]
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    finally:
        torch.set_num_threads(before)


def test_what_is_read_is_left_as_it_was(models: tuple[torch.nn.Module, PackedEncoder]) -> None:
    text = texts()[1]
    before = text.clone()
    models[1].read(text, [7])
    assert torch.equal(text, before)


def test_sizes_that_are_no_multiples_of_sixteen_do_not_fit() -> None:
    assert fits(384, 12, 1536)
    assert not fits(32, 4, 64)  # heads of 8
    assert not fits(384, 12, 1000)


def test_heads_whose_sums_could_overflow_do_not_fit() -> None:
    assert fits(768, 6, 1536)
    assert not fits(768, 4, 1536)
