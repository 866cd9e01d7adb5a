"""A tiny random BERT in a folder, with a tokenizer over a few words: what embedders and cross-encoders are tried on.

Knows nothing of what is tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = (
    *("the", "a", "fox", "dog", "runs", "jumps", "over", "lazy", "quick", "brown", "price", "of"),
    *("report", "quarter", "in", "euro", "!", "?", "query", "passage", ":"),
)
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def bert_folder(path: Path, model: type[Any] = BertModel, **options: Any) -> Path:
    """`model` (a transformers class) with random weights from seed 0; its tokenizer.json cuts and pads at 8 tokens."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(MARKS) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=300,
        initializer_range=0.5,
        **options,
    )
    model(config).eval().save_pretrained(path)
    vocabulary = {word: i for i, word in enumerate([*MARKS, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path / "tokenizer.json"))
    return path
