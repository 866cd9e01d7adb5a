"""The only place a prompt is rendered, for training and for serving alike.

Knows nothing of where passages come from or which model reads them. The layout is
[header] [label 1] [passage 1] … [label k] [passage k] [tail], each block tokenised by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from factform.errors import ModelError
from factform.records import Chunk, Contract, Passage, Prompt

REFUSAL: dict[str, str] = {"status": "not_in_documents"}
"""The one object that says: the documents do not hold the answer."""

PLAIN = Contract(
    schema={
        "type": "object",
        "properties": {
            "source": {"type": "string", "x-factform": "source"},
            "quote": {"type": "string", "x-factform": "quote"},
            "answer": {"type": "string", "minLength": 1, "maxLength": 300},
        },
        "required": ["source", "quote", "answer"],
        "additionalProperties": False,
    },
    quote_paths=(("quote",),),
    source_paths=(("source",),),
)
"""Contract of a question asked without a behavior: quote first, since the answer is then next to its evidence."""

PLAIN_SPAN = replace(
    PLAIN,
    schema={
        **PLAIN.schema,
        "properties": {**PLAIN.schema["properties"], "answer": {"type": "string", "x-factform": "span"}},
    },
    span_paths=(("answer",),),
    refusal=False,
)
"""The same where an evidence model proposes answers, which are words of the passage quoted: it is what refuses."""

PLAIN_INSTRUCTIONS = """Answer the question from the passages only.
First name the passage that holds the answer, then copy the words that prove it, then give the answer in a few words.
Write one JSON object: {"source": "<label>", "quote": "<words copied from that passage>", "answer": "<short answer>"}
If no passage holds the answer, write {"status": "not_in_documents"}"""

_SYSTEM_MARK, _USER_MARK = "\x02SYSTEM\x02", "\x02USER\x02"


@dataclass(frozen=True)
class ChatFormat:
    """A model's chat template, cut at its two contents: before the system text, between, after the user text."""

    before_system: str
    before_user: str
    after_user: str


def load_chat_format(folder: Path) -> ChatFormat:
    """Chat format of the model in `folder`, from chat_template.jinja or tokenizer_config.json.

    The template is rendered once with marks in place of the texts, in jinja's sandbox: it comes with the model's
    files and must not be able to do anything but make text. Raises ModelError where it does not show both texts.
    """
    config_path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    try:
        config: dict[str, Any] = json.loads(config_path.read_text("utf-8")) if config_path.exists() else {}
        template = template_path.read_text("utf-8") if template_path.exists() else config.get("chat_template")
    except (OSError, ValueError) as error:
        raise ModelError(f"{config_path} cannot be read: {error}") from error
    if not isinstance(template, str):
        raise ModelError(f"{folder} has no chat template (chat_template.jinja): use an instruction-tuned model")
    tokens = {k: v for k in ("bos_token", "eos_token") if isinstance(v := config.get(k), str)}
    return cut_template(template, tokens)


def cut_template(template: str, tokens: Mapping[str, str]) -> ChatFormat:
    """`template` rendered with marks and cut at them."""

    def refuse(message: str) -> None:
        raise ModelError(f"the model's chat template refuses a system and a user message: {message}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    messages = [{"role": "system", "content": _SYSTEM_MARK}, {"role": "user", "content": _USER_MARK}]
    text = environment.from_string(template).render(messages=messages, add_generation_prompt=True, **tokens)
    before, mark, rest = text.partition(_SYSTEM_MARK)
    middle, second, after = rest.partition(_USER_MARK)
    if not mark or not second:
        raise ModelError("the model's chat template does not show the system and the user message as they are")
    return ChatFormat(before, middle, after)


def render(
    question: str,
    passages: Sequence[Passage],
    chat: ChatFormat,
    *,
    instructions: str = "",
    trigger: str = "",
) -> Prompt:
    """A prompt for `question` over `passages`.

    With a tuned behavior `instructions` are empty (they are in the weights) and `trigger` names the behavior in the
    tail, the only part its adapter touches; header and passages then are the same for every behavior, and so are
    their keys and values.
    """
    blocks: list[str] = []
    for passage in passages:
        blocks += (f"[{passage.label}] ", passage_block(passage.chunk))
    ask = f"Question: {question}" + (f"\nBehavior: {trigger}" if trigger else "")
    header = f"{chat.before_system}{instructions}{chat.before_user}"
    user = "".join(blocks) + ask
    messages = (("system", instructions), ("user", user)) if instructions else (("user", user),)
    return Prompt(header, tuple(blocks), f"{ask}{chat.after_user}", messages)


def passage_block(chunk: Chunk) -> str:
    """A passage as the model reads it: the chunk's header and text, whatever its label and the prompt around it."""
    return f"{chunk.header}\n{chunk.text}\n\n" if chunk.header else f"{chunk.text}\n\n"


def prompted_instructions(instructions: str, schema: Mapping[str, Any]) -> str:
    """What a model without an adapter is told: the behavior's instructions and the schema they are about."""
    plain = json.dumps(_without_marks(schema), ensure_ascii=False)
    return f"{instructions.strip()}\n\nJSON Schema of the answer:\n{plain}"


def _without_marks(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_marks(v) for k, v in value.items() if k != "x-factform"}
    if isinstance(value, list | tuple):
        return [_without_marks(v) for v in value]
    return value
