"""transformers `generate`, float32 or bfloat16, whichever this machine reads a prompt faster in.

Knows nothing of the other peers. Its prefix caching is the documented one: the cache of the passages is kept and cut
back to them after each answer.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from hf_model import load
from protocol import Run, Step, main, read_tasks, run_tasks, versions
from transformers import AutoTokenizer, DynamicCache
from transformers.generation.streamers import BaseStreamer


class Clock(BaseStreamer):
    """When each token came; the first call is the prompt's."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.at.append(time.perf_counter())

    def end(self) -> None:
        return None


class TransformersEngine:
    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer
        self.kept: tuple[Any, int] | None = None

    def write(self, step: Step) -> Run:
        if step.prefix == "keep":
            self.keep(step.prompt.prefix)
        clock, started = Clock(), time.perf_counter()
        if step.prefix == "use" and self.kept:
            cache, length = self.kept
            ids = torch.cat([self.encode(step.prompt.prefix), self.encode(step.prompt.tail)], 1)
            self.generate(ids, step.tokens, clock, past_key_values=cache)
            ended = time.perf_counter()
            cache.crop(length - cache.get_seq_length())
        else:
            ids = self.encode(step.prompt.whole)
            self.generate(ids, step.tokens, clock)
            ended = time.perf_counter()
        return Run((clock.at[1] - started) * 1e3, (ended - started) * 1e3, ids.shape[1], len(clock.at) - 1)

    def keep(self, prefix: str) -> None:
        """Read `prefix` and keep its cache for the next question about the same passages."""
        ids, cache = self.encode(prefix), DynamicCache(config=self.model.config)
        with torch.inference_mode():
            self.model(ids, past_key_values=cache, logits_to_keep=1)
        self.kept = cache, ids.shape[1]

    def encode(self, text: str) -> torch.Tensor:
        return self.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]

    def generate(self, ids: torch.Tensor, tokens: int, clock: Clock, **more: Any) -> None:
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                streamer=clock,
                pad_token_id=self.tokenizer.eos_token_id,
                **more,
            )


def run(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    model, probe = load(job["model"])
    engine = TransformersEngine(model, AutoTokenizer.from_pretrained(job["model"]))
    return {
        "runs": run_tasks(engine, read_tasks(job["tasks"])),
        "versions": versions(["transformers", "torch"]),
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "probe_ms": probe,
            "prefix cache": "only where the same passages are asked again",
        },
    }


if __name__ == "__main__":
    main(run)
