"""A language model behind an OpenAI-compatible URL (vLLM, SGLang, llama-server, a hosted service).

Knows nothing of stores or weights. No reply is trusted: a server may ignore the schema and still say 200.
"""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from factform.errors import Cancelled, RemoteError
from factform.ids import sha256_json
from factform.jsonvalue import value_at
from factform.model.grammar import Constraint
from factform.model.prompt import REFUSAL, ChatFormat
from factform.model.schema import contract_schema, validate_answer
from factform.records import Generation, Mode, Prompt

TRIES = 4
"""How often one request is sent when the server is busy, fails or breaks off."""
LONGEST_WAIT_S = 30.0
LARGEST_REPLY = 8 << 20
_SHOWN = 200  # characters of a server's words in an error

Message = dict[str, str]


@dataclass(frozen=True)
class RemoteModel:
    """A model at `url` (its base, such as http://host:8000/v1) under the name `model`.

    The key is read from the environment variable `api_key_env` for each request and is kept nowhere. `timeout_s`
    bounds one request from sending to the last byte. An adapter is asked for by its name, `behavior@digest`: the
    server must serve it under that name, which never comes to mean other weights.
    """

    url: str
    model: str
    api_key_env: str | None = None
    timeout_s: float = 60.0

    @property
    def digest(self) -> str:
        """Names server and model. It says nothing of the weights, which the server may exchange."""
        return f"remote:{sha256_json([str(_endpoint(self.url)), self.model])}"

    @property
    def chat(self) -> ChatFormat:
        """Empty: the server renders its own template from `Prompt.messages`."""
        return ChatFormat("", "", "")

    def generate(
        self,
        prompt: Prompt,
        *,
        adapter: str | None = None,
        mode: Mode = "exact",
        constraint: Constraint | None = None,
        masked: bool = True,
        max_tokens: int = 256,
        cancel: threading.Event | None = None,
    ) -> Generation:
        """What the server answers at temperature 0.

        With a `constraint` and `masked`, the contract goes along as `response_format`, the reply is checked (contract,
        labels, quotes verbatim in the passage they name) and asked for once more with the fault stated; a second
        fault raises RemoteError. Otherwise the reply is returned as it is. `ms["first_token"]` equals the total, as
        replies are not streamed; token counts are 0 where the server does not tell. `cancel` keeps a further request
        from being sent; the first one is waited for.
        """
        if mode != "exact":
            raise RemoteError(
                f"mode {mode!r} needs the local reader; a model behind HTTP reads prompts in full: use exact"
            )
        checked = constraint if masked else None
        messages = _messages(prompt)
        first = self._complete(messages, adapter, checked, max_tokens, cancel)
        if checked is None or first.stop == "length" or not (problems := reply_problems(first.text, checked)):
            return first
        again = [*messages, {"role": "assistant", "content": first.text}, _complaint(problems)]
        second = _added(first, self._complete(again, adapter, checked, max_tokens, cancel))
        if second.stop != "length" and (problems := reply_problems(second.text, checked)):
            raise RemoteError(
                f"{self.model} at {_shown_url(self.url)} answered outside the contract twice: {'; '.join(problems)}. "
                "See whether the server supports response_format json_schema"
            )
        return second

    def _complete(
        self,
        messages: Sequence[Message],
        adapter: str | None,
        constraint: Constraint | None,
        max_tokens: int,
        cancel: threading.Event | None,
    ) -> Generation:
        """One answered request as a Generation, whatever is in it."""
        started = time.perf_counter()
        wanted = adapter or self.model
        body: dict[str, Any] = {"model": wanted, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        if constraint is not None:
            schema = contract_schema(constraint.contract, [passage.label for passage in constraint.passages])
            shape = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        reply = _post(self, body, cancel or threading.Event())
        if adapter is not None and reply.get("model", adapter) != adapter:
            raise RemoteError(
                f"{_shown_url(self.url)} answered with model {str(reply['model'])[:_SHOWN]!r} where adapter "
                f"{adapter!r} was asked for: load the adapter into the server under this name"
            )
        text, stop = _content(self, reply)
        usage = reply.get("usage")
        total = (time.perf_counter() - started) * 1e3
        return Generation(
            text=text,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            stop="length" if stop == "length" else "end",
            interventions=None,
            ms={"first_token": total, "total": total},
        )


def _messages(prompt: Prompt) -> list[Message]:
    """The prompt for a server that renders its own chat template."""
    if prompt.messages:
        return [{"role": role, "content": content} for role, content in prompt.messages]
    return [{"role": "user", "content": prompt.text}]


def _complaint(problems: Sequence[str]) -> Message:
    listing = "\n".join(f"- {problem}" for problem in problems)
    return {
        "role": "user",
        "content": f"This reply cannot be used:\n{listing}\nReply again, with the JSON object only.",
    }


def _added(first: Generation, second: Generation) -> Generation:
    """The second reply, at the cost of both."""
    return replace(
        second,
        prompt_tokens=first.prompt_tokens + second.prompt_tokens,
        completion_tokens=first.completion_tokens + second.completion_tokens,
        ms={stage: first.ms[stage] + second.ms[stage] for stage in second.ms},
    )


# --- is the reply an answer? ----------------------------------------------------------------


def reply_problems(text: str, constraint: Constraint) -> list[str]:
    """What keeps `text` from being an answer in the contract, quoting verbatim from the passages it names."""
    answer, problems = validate_answer(text, constraint.contract)
    if answer is None or problems or answer == REFUSAL:
        return problems
    texts = {passage.label: passage.chunk.text for passage in constraint.passages}
    contract = constraint.contract
    for path in contract.source_paths:
        if texts and (label := value_at(answer, path)) not in texts:
            problems.append(f"/{'/'.join(path)}: {label!r} is no passage; the labels are {', '.join(texts)}")
    for i, path in enumerate(contract.quote_paths):
        source = value_at(answer, contract.source_paths[i]) if i < len(contract.source_paths) else None
        among = [texts[source]] if source in texts else list(texts.values())
        problems += [f"/{'/'.join(path)}: {what}" for what in _quote_problems(value_at(answer, path), source, among)]
    if not texts:
        filled = [p for p in (*contract.source_paths, *contract.quote_paths) if value_at(answer, p) != ""]
        problems += [f"/{'/'.join(path)}: must be empty, there are no passages" for path in filled]
    return problems


def _quote_problems(quote: Any, source: Any, among: Sequence[str]) -> list[str]:
    if not among:
        return []
    if not isinstance(quote, str) or not quote.strip():
        return ["the quote is empty; copy the words that prove the answer"]
    if not any(quote in text for text in among):
        where = "any passage" if source is None else f"passage {source}"
        return [f"the quote is not verbatim in {where}; copy it character by character"]
    return []


# --- HTTP -----------------------------------------------------------------------------------


def _post(model: RemoteModel, body: Mapping[str, Any], cancel: threading.Event) -> dict[str, Any]:
    """The server's JSON object. Sent again, within bounds, when the server is busy, fails or breaks off; nothing is
    sent once `cancel` is set."""
    endpoint, key = _endpoint(model.url), _key(model)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    where, fault = _shown_url(model.url), ""
    with httpx.Client(timeout=model.timeout_s, follow_redirects=False, headers=headers) as client:
        for attempt in range(TRIES):
            if cancel.is_set():
                raise Cancelled("the question was cancelled while the server was answering")
            wait = min(0.5 * 2**attempt, LONGEST_WAIT_S)
            try:
                status, answered, data = _send(client, endpoint, body, model.timeout_s)
            except httpx.TimeoutException as timeout:
                raise RemoteError(
                    f"{where} did not answer within {model.timeout_s:g} s; raise model.timeout_s or look at the server"
                ) from timeout
            except httpx.RequestError as broken:
                fault = f"the connection failed ({type(broken).__name__})"
            else:
                if status == 200:
                    return _json_object(data, where)
                fault = f"HTTP {status}{_said(data, key)}"
                if status != 429 and status < 500:
                    raise RemoteError(_refused(model, status, fault, where))
                wait = _retry_after(answered, wait)
            if attempt + 1 < TRIES:
                cancel.wait(wait)
    raise RemoteError(f"{where} failed {TRIES} times, at last: {fault}. See whether the server is up, then ask again")


def _send(
    client: httpx.Client, endpoint: httpx.URL, body: Mapping[str, Any], timeout_s: float
) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and body, of bounded size and in bounded time: httpx alone bounds each read, not their sum."""
    deadline = time.monotonic() + timeout_s
    data = bytearray()
    with client.stream("POST", endpoint, json=body) as response:
        for piece in response.iter_bytes():
            data += piece
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the reply took too long")
            if len(data) > LARGEST_REPLY:
                raise RemoteError(
                    f"the server's reply is larger than {LARGEST_REPLY >> 20} MiB; nothing was read of it"
                )
        return response.status_code, response.headers, bytes(data)


def _endpoint(url: str) -> httpx.URL:
    """The address requests go to: `url` with /chat/completions, and /v1 before it where no path is given."""
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as fault:
        raise RemoteError("model.url is not a URL; give the server's base, such as http://host:8000/v1") from fault
    if base.scheme not in ("http", "https") or not base.host:
        raise RemoteError(f"model.url must begin with http:// or https://, found {_shown_url(url)!r}")
    if base.userinfo:
        raise RemoteError("model.url holds a user name or password; put the key into the variable api_key_env names")
    path = base.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return base.copy_with(path=path)


def _shown_url(url: str) -> str:
    """The address as errors may show it: without user, password and query."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return "the server"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.host}{port}{parts.path}"


def _key(model: RemoteModel) -> str:
    if not model.api_key_env:
        return ""
    key = os.environ.get(model.api_key_env, "").strip()
    if not key:
        raise RemoteError(f"the environment variable {model.api_key_env} is empty; put the server's key into it")
    if not key.isascii() or not key.isprintable():
        raise RemoteError(f"the key in {model.api_key_env} holds characters that cannot be sent; set it again")
    return key


def _refused(model: RemoteModel, status: int, fault: str, where: str) -> str:
    if 300 <= status < 400:
        return f"{where} redirects (HTTP {status}), which is refused: set model.url to the final address"
    if status in (401, 403):
        named = f"the key in {model.api_key_env}" if model.api_key_env else "api_key_env, which is not set"
        return f"{where} denies access, {fault}; check {named}"
    return f"{where} refused the request: {fault}"


def _said(data: bytes, key: str) -> str:
    """The server's own words, short, and without the key should they repeat it."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = json.loads(text)
        error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (ValueError, RecursionError):
        pass
    text = " ".join((text.replace(key, "…") if key else text).split())
    return f": {text[:_SHOWN]}" if text else ""


def _retry_after(headers: httpx.Headers, otherwise: float) -> float:
    """Seconds the server asks us to wait (a number or a date), within bounds."""
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        return min(float(value), LONGEST_WAIT_S)
    try:
        return min(max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0), LONGEST_WAIT_S)
    except (ValueError, TypeError):
        return otherwise


def _json_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        reply = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise RemoteError(f"{where} answered with something that is not JSON; see whether the URL is right") from fault
    if not isinstance(reply, dict):
        raise RemoteError(f"{where} answered with a JSON {type(reply).__name__}, expected an object")
    return reply


def _content(model: RemoteModel, reply: Mapping[str, Any]) -> tuple[str, str]:
    """Text and finish reason of the first choice."""
    where = _shown_url(model.url)
    try:
        choice = reply["choices"][0]
        text, stop = choice["message"].get("content"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as fault:
        raise RemoteError(
            f"{where} answered without choices[0].message; it is not an OpenAI-compatible server"
        ) from fault
    if not isinstance(text, str):
        raise RemoteError(f"{where} answered without text (finish reason {str(stop)[:_SHOWN]!r})")
    return text, str(stop)


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else 0
