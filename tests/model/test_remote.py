"""Against a real HTTP server in a thread: one that answers well, and ones that do everything wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jsonschema_rs
import pytest

from factform.errors import Cancelled, RemoteError
from factform.model import remote
from factform.model.grammar import Constraint
from factform.model.remote import RemoteModel, reply_problems
from factform.model.schema import marked_paths
from factform.records import Chunk, Contract, Passage, Prompt

SCHEMA = {
    "type": "object",
    "properties": {
        "source": {"type": "string", "x-factform": "source"},
        "quote": {"type": "string", "x-factform": "quote"},
        "answer": {"type": "string"},
    },
    "required": ["source", "quote", "answer"],
    "additionalProperties": False,
}
CONTRACT = Contract(SCHEMA, marked_paths(SCHEMA, "quote"), marked_paths(SCHEMA, "source"))
TEXTS = {"1": "Revenue rose to 12.5 million.", "2": "Costs fell."}
CONSTRAINT = Constraint(
    CONTRACT, tuple(Passage(label, Chunk(label, "d", "v", 0, len(t), t, "", "T")) for label, t in TEXTS.items())
)
PROMPT = Prompt("h", ("[1] ", "Revenue rose."), "t", (("system", "be brief"), ("user", "What rose?")))
GOOD = '{"source": "1", "quote": "Revenue rose", "answer": "revenue"}'
FABRICATED = '{"source": "2", "quote": "Revenue rose", "answer": "revenue"}'
KEY = "sk-test-never-show-this"

Action = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def completion(text: Any, *, finish: str = "stop", model: str | None = None, usage: Any = (7, 3)) -> Action:
    def act(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        body: dict[str, Any] = {"model": model or request["model"], "choices": [choice]}
        if usage:
            body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        send(handler, 200, json.dumps(body).encode())

    return act


def status(code: int, body: bytes = b"", **headers: str) -> Action:
    return lambda handler, _: send(handler, code, body, **headers)


def send(handler: BaseHTTPRequestHandler, code: int, body: bytes, **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def break_off(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """A byte at a time, each in good time: only a bound on the whole helps."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _i in range(40):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


@dataclass
class Server:
    """Does one scripted action a request (the last one for ever) and remembers what it was sent."""

    actions: list[Action] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    def model(self, **options: Any) -> RemoteModel:
        return RemoteModel(self.url, "base-model", **{"timeout_s": 5.0, **options})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(request)
            state.headers.append({k.lower(): v for k, v in self.headers.items()})
            state.paths.append(self.path)
            action = state.actions.pop(0) if len(state.actions) > 1 else state.actions[0]
            action(self, request)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_MODEL_KEY", KEY)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/v1"
        yield state
        http.shutdown()
        thread.join()


def test_a_good_server_is_asked_rightly_and_believed(server: Server) -> None:
    server.actions = [completion(GOOD)]
    found = server.model(api_key_env="TEST_MODEL_KEY").generate(PROMPT, constraint=CONSTRAINT, max_tokens=99)
    assert (found.text, found.stop, found.prompt_tokens, found.completion_tokens) == (GOOD, "end", 7, 3)
    assert found.interventions is None
    assert found.ms["total"] > 0
    (request,) = server.requests
    assert request["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "What rose?"},
    ]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("base-model", 0, 99)
    shape = request["response_format"]
    assert (shape["type"], shape["json_schema"]["strict"]) == ("json_schema", True)
    valid = jsonschema_rs.validator_for(shape["json_schema"]["schema"]).is_valid
    assert valid(json.loads(GOOD))
    assert valid({"status": "not_in_documents"})
    assert not valid({**json.loads(GOOD), "source": "3"})
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.paths == ["/v1/chat/completions"]


def test_without_a_constraint_or_mask_the_text_comes_as_it_is(server: Server) -> None:
    server.actions = [completion("Sure! Revenue.")]
    assert server.model().generate(PROMPT).text == "Sure! Revenue."
    assert server.model().generate(PROMPT, constraint=CONSTRAINT, masked=False).text == "Sure! Revenue."
    assert all("response_format" not in request for request in server.requests)
    assert "authorization" not in server.headers[0]


def test_a_prompt_without_messages_goes_as_one_message(server: Server) -> None:
    server.actions = [completion("x")]
    server.model().generate(Prompt("a", ("b",), "c"))
    assert server.requests[0]["messages"] == [{"role": "user", "content": "abc"}]


@pytest.mark.parametrize("bad", ["Sure, here you are", FABRICATED, '{"source": "1"}'])
def test_a_server_that_ignores_the_schema_gets_one_more_chance(server: Server, bad: str) -> None:
    server.actions = [completion(bad), completion(GOOD)]
    found = server.model().generate(PROMPT, constraint=CONSTRAINT)
    assert found.text == GOOD
    assert (found.prompt_tokens, found.completion_tokens) == (14, 6), "both requests are paid for"
    assert server.requests[1]["messages"][2] == {"role": "assistant", "content": bad}
    assert "cannot be used" in server.requests[1]["messages"][3]["content"]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("Sure", "not JSON"),
        (FABRICATED, "not verbatim in passage 2"),
        ('{"source": "9", "quote": "Costs", "answer": ""}', "'9' is no passage"),
        ('{"source": "1", "quote": " ", "answer": ""}', "quote is empty"),
        ('{"source": "1", "quote": "Costs", "answer": 5}', "/answer"),
    ],
)
def test_twice_outside_the_contract_is_an_error_naming_the_fault(server: Server, bad: str, fault: str) -> None:
    server.actions = [completion(bad)]
    with pytest.raises(RemoteError, match=fault):
        server.model().generate(PROMPT, constraint=CONSTRAINT)
    assert len(server.requests) == 2


def test_refusal_and_closed_book(server: Server) -> None:
    assert reply_problems('{"status": "not_in_documents"}', CONSTRAINT) == []
    closed = Constraint(CONTRACT)
    assert reply_problems('{"source": "", "quote": "", "answer": "a"}', closed) == []
    assert len(reply_problems(GOOD, closed)) == 2


def test_the_token_limit_is_reported_not_repeated(server: Server) -> None:
    server.actions = [completion('{"source": "1', finish="length")]
    assert server.model().generate(PROMPT, constraint=CONSTRAINT).stop == "length"
    assert len(server.requests) == 1


def test_an_adapter_is_asked_for_by_name_and_must_answer_itself(server: Server) -> None:
    server.actions = [completion(GOOD), completion(GOOD, model="base-model")]
    server.model().generate(PROMPT, adapter="terms@0123456789ab", constraint=CONSTRAINT)
    assert server.requests[0]["model"] == "terms@0123456789ab"
    with pytest.raises(RemoteError, match="'base-model' where adapter 'terms@0123456789ab'"):
        server.model().generate(PROMPT, adapter="terms@0123456789ab", constraint=CONSTRAINT)


def test_nothing_more_is_sent_once_the_question_is_given_up(server: Server) -> None:
    given_up = threading.Event()

    def busy(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        given_up.set()  # while the server is answering
        send(handler, 503, b"", Retry_After="20")

    def wrong(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        given_up.set()
        completion(FABRICATED)(handler, request)

    for action in (busy, wrong):
        given_up.clear()
        server.actions, server.requests = [action], []
        started = time.monotonic()
        with pytest.raises(Cancelled):
            server.model().generate(PROMPT, constraint=CONSTRAINT, cancel=given_up)
        assert len(server.requests) == 1
        assert time.monotonic() - started < 10  # it would have waited 20 seconds


def test_a_reply_that_cannot_be_unpacked_is_told(server: Server) -> None:
    server.actions = [status(200, b"not packed", Content_Encoding="gzip", Retry_After="0")]
    with pytest.raises(RemoteError, match="DecodingError"):
        server.model().generate(PROMPT, constraint=CONSTRAINT)


def test_busy_failing_and_broken_replies_are_tried_again(server: Server) -> None:
    server.actions = [
        status(500, Retry_After="0"),
        status(429, Retry_After="0"),
        break_off,
        completion(GOOD, usage=None),
    ]
    started = time.monotonic()
    found = server.model().generate(PROMPT, constraint=CONSTRAINT)
    assert found.text == GOOD
    assert found.prompt_tokens == 0
    assert len(server.requests) == 4
    assert time.monotonic() - started < 4


def test_a_server_that_stays_down_is_given_up(server: Server) -> None:
    server.actions = [status(503, b'{"error": {"message": "loading"}}', Retry_After="0")]
    with pytest.raises(RemoteError, match=r"failed 4 times.*HTTP 503: loading"):
        server.model().generate(PROMPT)
    assert len(server.requests) == remote.TRIES


def test_waiting_follows_the_server_within_bounds() -> None:
    def wait(value: str) -> float:
        return remote._retry_after(remote.httpx.Headers({"Retry-After": value}), 0.5)

    assert wait("3") == 3
    assert wait("99999") == remote.LONGEST_WAIT_S
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert wait("soon") == wait("") == 0.5


@pytest.mark.parametrize("action", [lambda handler, _: time.sleep(1.0), drip], ids=["hangs", "drips"])
def test_a_server_that_takes_too_long_is_left(server: Server, action: Action) -> None:
    server.actions = [action]
    started = time.monotonic()
    with pytest.raises(RemoteError, match=r"within 0\.3 s"):
        server.model(timeout_s=0.3).generate(PROMPT)
    assert time.monotonic() - started < 1.5
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (status(200, b"<html>hello</html>"), "not JSON"),
        (status(200, b"[]"), "expected an object"),
        (status(200, b'{"choices": []}'), r"choices\[0\]"),
        (status(200, b'{"choices": [{"message": "x"}]}'), r"choices\[0\]"),
        (completion(None, finish="content_filter"), "without text.*content_filter"),
        (status(404, b'{"error": "no such model"}'), "HTTP 404: no such model"),
        (status(307, Location="http://127.0.0.1:9/"), "redirects"),
    ],
)
def test_wrong_replies_are_errors_at_once(server: Server, action: Action, what: str) -> None:
    server.actions = [action]
    with pytest.raises(RemoteError, match=what):
        server.model().generate(PROMPT)
    assert len(server.requests) == 1


def test_the_key_is_shown_nowhere(server: Server) -> None:
    server.actions = [status(401, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode())]
    model = server.model(api_key_env="TEST_MODEL_KEY")
    with pytest.raises(RemoteError, match="check the key in TEST_MODEL_KEY") as fault:
        model.generate(PROMPT)
    assert KEY not in f"{fault.value!r} {fault.value.__cause__!r} {model!r} {model.digest}"


def test_a_missing_or_unusable_key_is_told_before_anything_is_sent(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.actions = [completion("x")]
    monkeypatch.delenv("TEST_MODEL_KEY")
    with pytest.raises(RemoteError, match="TEST_MODEL_KEY is empty"):
        server.model(api_key_env="TEST_MODEL_KEY").generate(PROMPT)
    monkeypatch.setenv("TEST_MODEL_KEY", "a\nb-secret")
    with pytest.raises(RemoteError, match="cannot be sent") as fault:
        server.model(api_key_env="TEST_MODEL_KEY").generate(PROMPT)
    assert "secret" not in str(fault.value)
    assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://host/v1", "host:8000", "", "http://user:pw@host/v1"])
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(RemoteError, match=r"model\.url") as fault:
        RemoteModel(url, "m").generate(PROMPT)
    assert "pw" not in str(fault.value)


def test_addresses_are_completed() -> None:
    wanted = "http://h:1/v1/chat/completions"
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/", wanted):
        assert str(remote._endpoint(url)) == wanted
    assert str(remote._endpoint("https://h/openai/v2")) == "https://h/openai/v2/chat/completions"


def test_reuse_needs_the_local_reader(server: Server) -> None:
    with pytest.raises(RemoteError, match="local reader"):
        server.model().generate(PROMPT, mode="reuse")
