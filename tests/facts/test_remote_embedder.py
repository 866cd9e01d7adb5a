"""Vectors over HTTP from a real server on this machine, and what all embedders promise."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hash_encoder import HashEncoder
from tiny_bert import bert_folder

from factform.errors import RemoteError, SettingsError
from factform.facts import remote
from factform.facts.embed import Embedder, Encoder
from factform.facts.remote import BATCH, TRIES, RemoteEmbedder
from factform.facts.store import DataLayer
from factform.records import Source


class Server:
    """Vectors of `HashEncoder`, tripled in length, in reverse order; before them `replies`, as (status, body)."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        rows = [{"index": i, "embedding": (3 * v).tolist()} for i, v in enumerate(HashEncoder().encode(texts))]
        return {"data": rows[::-1]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote, "WAIT_S", 0.001)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append({"path": self.path, **body})
            state.keys.append(self.headers.get("Authorization"))
            status, reply = state.replies.pop(0) if state.replies else (200, state.vectors(body["input"]))
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "server", "hash"])
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Encoder]:
    if request.param == "server":
        with RemoteEmbedder(request.getfixturevalue("server").url, "m") as found:
            yield found
    else:
        yield Embedder.open(bert_folder(tmp_path)) if request.param == "folder" else HashEncoder()


def test_what_every_embedder_promises(encoder: Encoder) -> None:
    texts = ["a quick fox", "", "the price of the report", "fox " * 30]
    whole = encoder.encode(texts)
    assert (whole.shape, whole.dtype) == ((4, encoder.dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-4)
    both, tokens = encoder.encode_both(texts)
    np.testing.assert_allclose(both, whole, atol=1e-4)
    for each, alone in zip(tokens, encoder.encode_tokens(texts), strict=True):
        assert each.shape == alone.shape
        assert each.shape[1] == encoder.dim
    one, _ = encoder.encode_query(texts[0])
    np.testing.assert_allclose(one, whole[0], atol=1e-4)
    assert encoder.encode([]).shape == (0, encoder.dim)
    assert encoder.count_tokens("") == 0
    assert 0 < encoder.count_tokens("the price") < encoder.count_tokens("the price of the report 2025")
    assert {"model", "precision"} <= set(encoder.identity)


def test_batches_order_length_and_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDER_KEY", "secret-1")
    with RemoteEmbedder(server.url + "/", "m", api_key_env="EMBEDDER_KEY") as embedder:
        texts = [f"word{i} fox" for i in range(BATCH + 3)]
        found = embedder.encode(texts)
        np.testing.assert_allclose(found, HashEncoder().encode(texts), atol=1e-5)
        assert [len(call["input"]) for call in server.seen] == [1, BATCH, 3]
        assert {(call["path"], call["model"]) for call in server.seen} == {("/v1/embeddings", "m")}
        assert set(server.keys) == {"Bearer secret-1"}
        monkeypatch.setenv("EMBEDDER_KEY", "")
        with pytest.raises(RemoteError, match="EMBEDDER_KEY is empty"):
            embedder.encode(["fox"])


def test_a_key_is_neither_shown_nor_sent_as_it_cannot_be(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDER_KEY", "secret-1\n")
    with RemoteEmbedder(server.url, "m", api_key_env="EMBEDDER_KEY") as embedder:
        assert set(server.keys) == {"Bearer secret-1"}
        server.replies = [(401, {"error": {"message": "Incorrect API key provided: Bearer secret-1"}})]
        with pytest.raises(RemoteError, match="Incorrect API key provided") as told:
            embedder.encode(["fox"])
        assert "secret-1" not in str(told.value)
        monkeypatch.setenv("EMBEDDER_KEY", "schlüssel")
        with pytest.raises(RemoteError, match="characters that cannot be sent"):
            embedder.encode(["fox"])


def test_a_reply_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with RemoteEmbedder(server.url, "m") as embedder:
        server.replies = [(200, b"[" * 200_000)]
        with pytest.raises(RemoteError, match="something else than vectors"):
            embedder.encode(["fox"])
        monkeypatch.setattr(remote, "LARGEST_REPLY", 10)
        with pytest.raises(RemoteError, match="more than 10 bytes"):
            embedder.encode(["fox"])


def test_what_passes_by_itself_is_tried_again_and_the_rest_is_not(server: Server) -> None:
    with RemoteEmbedder(server.url, "m") as embedder:
        server.seen.clear()
        server.replies = [(429, {}), (503, b"busy")]
        np.testing.assert_allclose(embedder.encode(["fox"]), HashEncoder().encode(["fox"]), atol=1e-5)
        assert len(server.seen) == 3
        server.seen.clear()
        server.replies = [(500, {})] * TRIES
        with pytest.raises(RemoteError, match="HTTP 500"):
            embedder.encode(["fox"])
        assert len(server.seen) == TRIES
        server.seen.clear()
        server.replies = [(401, {"error": {"message": "wrong key"}})]
        with pytest.raises(RemoteError, match="HTTP 401: wrong key"):
            embedder.encode(["fox"])
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "something else"),
        ({"data": [{"index": 0}]}, "something else"),
        ({"data": []}, "0 vectors for 1"),
        ({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}, "shape"),
        (b'{"data": [{"index": 0, "embedding": [NaN]}]}', "not finite"),
    ],
)
def test_a_reply_is_not_trusted(server: Server, body: Any, said: str) -> None:
    with RemoteEmbedder(server.url, "m") as embedder:
        server.replies = [(200, body)]
        with pytest.raises(RemoteError, match=said):
            embedder.encode(["fox"])


def test_nobody_there(server: Server) -> None:
    with pytest.raises(RemoteError, match=r"at http://127\.0\.0\.1:1/v1 gave no vectors: ConnectError"):
        RemoteEmbedder("http://user:secret@127.0.0.1:1/v1?key=x", "m")


def test_a_store_over_it_searches_without_late_interaction(server: Server, tmp_path: Path) -> None:
    with RemoteEmbedder(server.url, "m") as embedder, DataLayer.open(tmp_path, embedder) as layer:
        layer.add([Source("a", b"the fox runs", "a.txt"), Source("b", b"the price of the report", "b.txt")])
        result = layer.search("price report")
        assert result.hits[0].chunk.document == "b"
        assert all("maxsim" not in hit.scores for hit in result.hits)
        assert result.notes == ("no rerank: the embedder gives no token vectors",)
    with RemoteEmbedder(server.url, "other") as embedder, pytest.raises(SettingsError, match="embedder model was"):
        DataLayer.open(tmp_path, embedder)
