"""llama.cpp from a PyPI wheel (xllamacpp), its server called in the process, its prompt cache on.

Knows nothing of the other peers.
"""

from __future__ import annotations

from typing import Any

import xllamacpp
from protocol import Run, Step, main, read_tasks, run_tasks, stopwatch, versions

CONTEXT = 8192
MICRO_BATCH = 512


class LlamaCppEngine:
    def __init__(self, server: Any):
        self.server = server

    def write(self, step: Step) -> Run:
        request = {
            "prompt": step.prompt.whole,
            "max_tokens": step.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
        }
        clock = stopwatch()
        result = self.server.handle_completions(request)
        total = clock()
        if "timings" not in result:
            raise RuntimeError(f"the server said: {result}")
        times, usage = result["timings"], result["usage"]
        return Run(total - times["predicted_ms"], total, usage["prompt_tokens"], times["predicted_n"])


def run(job: dict[str, Any]) -> dict[str, Any]:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = job["gguf"], CONTEXT, 1
    params.n_batch = params.n_ubatch = MICRO_BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    server = xllamacpp.Server(params)
    built = " ".join(str(xllamacpp.get_system_info()).replace("|", " ").split())
    return {
        "runs": run_tasks(LlamaCppEngine(server), read_tasks(job["tasks"])),
        "versions": versions(["xllamacpp"]),
        "settings": {"weights": "GGUF as it is", "built with": built, "prefix cache": "on"},
    }


if __name__ == "__main__":
    main(run)
