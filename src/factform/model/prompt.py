"""The only place a prompt is rendered, for training and for serving alike.

Knows nothing of where passages come from or which model reads them. The layout is
[header] [label 1] [passage 1] … [label k] [passage k] [tail], each block tokenised by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from factform.errors import ModelError
from factform.ids import printable
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

_SYSTEM_MARK, _USER_MARK, _ANSWER_MARK = "\x02SYSTEM\x02", "\x02USER\x02", "\x02ANSWER\x02"


TOKENS = ("bos_token", "eos_token")

TODAY = datetime(2026, 1, 1, tzinfo=UTC)
"""What a template that asks for the date is told, whenever it is: an adapter is served the header it was trained under,
and a prompt can be rendered again to what its record says."""


@dataclass(frozen=True)
class ChatFormat:
    """A model's chat template, cut at its two contents: before the system text, between, after the user text.

    `after_answer` is what it puts behind an answer, if it renders one.
    """

    before_system: str
    before_user: str
    after_user: str
    after_answer: str = ""


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
    given = {k: v["content"] if isinstance(v := config.get(k), Mapping) and "content" in v else v for k in TOKENS}
    return cut_template(template, {k: v for k, v in given.items() if isinstance(v, str)})


def cut_template(template: str, tokens: Mapping[str, str]) -> ChatFormat:
    """`template` rendered with marks and cut at them."""

    def refuse(message: str) -> None:
        raise ModelError(f"the model's chat template refuses a system and a user message: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = TODAY.strftime

    def rendered(contents: Mapping[str, str], **more: Any) -> str:
        messages = [{"role": role, "content": content} for role, content in contents.items()]
        try:
            compiled = environment.from_string(template)
            # A grammar leaves no room for thinking aloud: models that do it by default are told not to.
            return compiled.render(messages=messages, enable_thinking=False, **tokens, **more)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise ModelError(f"the model's chat template cannot be rendered: {error}") from error

    contents = {"system": _SYSTEM_MARK, "user": _USER_MARK}
    before, mark, rest = rendered(contents, add_generation_prompt=True).partition(_SYSTEM_MARK)
    middle, second, after = rest.partition(_USER_MARK)
    if not mark or not second:
        raise ModelError("the model's chat template does not show the system and the user message as they are")
    try:
        answered = rendered({**contents, "assistant": _ANSWER_MARK})
    except ModelError:
        answered = ""
    return ChatFormat(before, middle, after, answered.partition(_ANSWER_MARK)[2])


class _Generation(Extension):
    """The tag `generation`, which marks answers for training in some templates; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  (a variable of the class in jinja too)

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


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
    ask = f"Question: {printable(question)}" + (f"\nBehavior: {trigger}" if trigger else "")
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
