"""OpenVINO GenAI on the GGUF file itself, with its default settings: 8-bit activations, its prefix cache on.

Knows nothing of the other peers.
"""

from __future__ import annotations

from typing import Any

import openvino_genai as genai
from protocol import Run, Step, main, read_tasks, run_tasks, stopwatch, versions


class OpenVinoEngine:
    def __init__(self, pipeline: Any):
        self.pipeline = pipeline

    def write(self, step: Step) -> Run:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = step.tokens
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        clock = stopwatch()
        result = self.pipeline.generate([step.prompt.whole], config)
        total = clock()
        metrics = result.perf_metrics
        # Its own clock tells the first of several tokens; a single one is told by ours, tokenizing included.
        first = metrics.get_ttft().mean if step.tokens > 1 else total
        return Run(first, total, metrics.get_num_input_tokens(), metrics.get_num_generated_tokens())


def run(job: dict[str, Any]) -> dict[str, Any]:
    pipeline = genai.LLMPipeline(job["gguf"], "CPU", INFERENCE_NUM_THREADS=job["threads"])
    return {
        "runs": run_tasks(OpenVinoEngine(pipeline), read_tasks(job["tasks"])),
        "versions": versions(["openvino-genai", "openvino"]),
        "settings": {"weights": "GGUF as it is", "prefix cache": "on, its default"},
    }


if __name__ == "__main__":
    main(run)
