"""factform.toml: read strictly, with defaults for everything.

Knows nothing of what the values are used for. Unknown keys are refused: a misspelt setting must not be ignored.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from factform.errors import ProjectError, SettingsError

FILE = "factform.toml"
STATE = ".factform"

_STRICT = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(BaseModel):
    """Which models: a name the project knows, a Hugging Face id, a folder; or a URL for the language model.

    With `embedder_url` vectors come from an OpenAI-compatible server that knows `embedder` by that name.
    `decode`: "int8" takes the weights in 8 bit on a CPU, "full" in `dtype`. `native`: "auto" compiles a library for
    that where there is a C++ compiler; with "off", or without one, torch reads in `dtype` and only writes in 8 bit.
    `threads` 0 leaves their number to OMP_NUM_THREADS or, without it, to what was fastest on this machine.
    Passages are encoded once (`warm`: when they are added, when first used, or "off": for one answer only) and kept in
    `kv_dtype`, in memory up to `kv_budget_mb`, on disk up to `kv_disk_mb` (0: not at all).
    """

    model_config = _STRICT
    language: str = "smollm2-135m"
    embedder: str = "minilm-l6"
    embedder_url: str = ""
    embedder_key_env: str = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    decode: Literal["int8", "full"] = "int8"
    native: Literal["auto", "off"] = "auto"
    threads: int = Field(default=0, ge=0, le=1024)
    kv_dtype: Literal["auto", "int8", "float16", "float32"] = "auto"
    kv_budget_mb: int = Field(default=1024, ge=16)
    kv_disk_mb: int = Field(default=0, ge=0)
    warm: Literal["add", "use", "off"] = "use"
    url: str = ""
    api_key_env: str = ""
    timeout_s: float = Field(default=60.0, gt=0)


class FactsSettings(BaseModel):
    """How documents are read, cut and found. Ids of files are paths relative to `root`, itself relative to the project.

    A document that takes longer than `parse_seconds` to be parsed, or more than `parse_memory_mb` beyond what its
    parser needs for an empty one, fails in its receipt. `ocr` "auto" recognizes the text of PDF pages that are pictures
    where the program tesseract is installed, in `ocr_language` ("deu+eng" for two); the receipt's note says so.

    The best `candidates` by vectors and by words are scored together, words having the share `word_weight`, and the
    first `rerank_depth` of them once more by `rerank`; "cross-encoder" takes `rerank_model` (a folder or hub id).
    What "maxsim" needs of passages is kept on "disk", 18 KB for one of 180 tokens, or in "memory", as far as there is
    room; what is not there is computed.
    A plain question is answered from `passages` of them; with `passage_tokens` above 0 from as many as fit into that.

    Of old versions `factform prune` keeps the newest `keep_versions` of each document, the current one counted, and
    those found within the last `keep_days`; with neither, all. What an answer cites goes only without `keep_cited`.

    With `access` "required" nothing is searched for somebody who did not say who they are.
    """

    model_config = _STRICT
    root: str = "."
    chunk_tokens: int = Field(default=160, ge=16, le=480)
    passages: int = Field(default=4, ge=1, le=8)
    passage_tokens: int = Field(default=0, ge=0)
    candidates: int = Field(default=50, ge=1, le=1000)
    word_weight: float = Field(default=0.3, ge=0, le=1)
    rerank: Literal["maxsim", "cross-encoder", "none"] = "maxsim"
    rerank_depth: int = Field(default=30, ge=1, le=1000)
    rerank_model: str = ""
    token_vectors: Literal["disk", "memory"] = "disk"
    max_file_mb: int = Field(default=50, ge=1)
    keep_versions: int = Field(default=0, ge=0)
    keep_days: int = Field(default=0, ge=0, le=100_000)
    keep_cited: bool = True
    writer_wait_s: float = Field(default=10.0, ge=0)
    parse_seconds: float = Field(default=60.0, gt=0)
    parse_memory_mb: int = Field(default=1024, ge=64)
    ocr: Literal["auto", "off"] = "auto"
    ocr_language: str = Field(default="eng", pattern=r"^[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*$")
    access: Literal["open", "required"] = "open"


class AnswerSettings(BaseModel):
    """How plain questions are answered and what a record keeps.

    `evidence` names the model that reads the passages first: "auto" (the one that ships, if it was grown from this
    project's embedder), "off" or a folder. Its best `proposals` (with a behavior `behavior_proposals`) are what may be
    quoted. Below a probability of `refuse_below` that they hold the answer nothing is written; -1 takes what the
    model's card says for a plain question, and what tuning found for an adapter. Where tuning found one the adapter
    itself may not refuse, unless `adapter_refuses` is "always". An answer less likely to be right than `min_confidence`
    is not released.
    """

    model_config = _STRICT
    max_tokens: int = Field(default=160, ge=8)
    keep_prompt: bool = True
    evidence: str = "auto"
    refuse_below: float = Field(default=-1.0, ge=-1, le=1)
    adapter_refuses: Literal["auto", "always"] = "auto"
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    proposals: int = Field(default=1, ge=0, le=30)
    behavior_proposals: int = Field(default=1, ge=0, le=30)


class TrainSection(BaseModel):
    """How adapters are trained; see `form/train.py` for what each value does."""

    model_config = _STRICT
    rank: int = Field(default=32, ge=1, le=256)
    alpha: float = Field(default=64.0, gt=0)
    learning_rate: float = Field(default=0.0015, gt=0)
    batch: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: float = Field(default=1.0, gt=0)
    steps: int = Field(default=0, ge=0)
    seed: int = 0
    twins: float = Field(default=1.0, ge=0, le=1)
    unanswerable: float = Field(default=0.25, ge=0, le=0.6)
    held_out: int = Field(default=10, ge=1)
    gate_cases: int = Field(default=28, ge=1)
    check_every: int = Field(default=65, ge=1)


class WebSettings(BaseModel):
    """Which pages may be fetched. `allow` are hosts (`example.org`, `*.example.org`, `*`; with `:8080` or `:*` for
    other ports than 80 and 443); without one nothing is. `private` lets names lead to addresses of one's own network,
    `timeout_s` is for a page with all its redirects."""

    model_config = _STRICT
    allow: tuple[Annotated[str, Field(pattern=r"^[^/\s@]+$")], ...] = ()
    private: bool = False
    max_mb: int = Field(default=50, ge=1)
    timeout_s: float = Field(default=30.0, gt=0)
    redirects: int = Field(default=5, ge=0, le=20)


class Settings(BaseModel):
    """All of factform.toml."""

    model_config = _STRICT
    model: ModelSettings = ModelSettings()
    facts: FactsSettings = FactsSettings()
    web: WebSettings = WebSettings()
    answer: AnswerSettings = AnswerSettings()
    train: TrainSection = TrainSection()


def load_settings(project: Path) -> Settings:
    """Settings of the project in `project`.

    Raises ProjectError where there is no factform.toml, SettingsError naming file, key and value otherwise.
    """
    path = project / FILE
    if not path.is_file():
        raise ProjectError(f"no {FILE} in {project}: create a project there with `factform init --project {project}`")
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise SettingsError(f"{path}: {problems}") from error


TEMPLATE = """# Settings of this Factform project; every value is optional. docs/reference.md lists them all.
[model]
language = "smollm2-135m"   # a known name, a Hugging Face id, a folder; or set url for an OpenAI-compatible server
embedder = "minilm-l6"

[facts]
root = "."                  # document ids of files are paths relative to this folder
passages = 4                # passages given to the model for a plain question
"""
