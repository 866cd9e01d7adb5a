"""Vectors from a server with an OpenAI-compatible embeddings API: the second kind of `Encoder`.

Knows nothing of stores. Such a server gives no token vectors, so there is nothing to rerank by late interaction, and no
tokenizer, so tokens are counted by a rule of thumb.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from factform.errors import RemoteError
from factform.facts.embed import Vectors
from factform.ids import sha256_json

BATCH = 64
"""Texts of one request; servers commonly take 96 or more."""

TRIES = 4
WAIT_S = 0.5
"""Before the second try; each further one waits twice as long, or as long as the server says."""

LARGEST_REPLY = 256 << 20
"""Bytes of a reply: far more than the vectors of a batch take."""

AGAIN = {408, 409, 429, 500, 502, 503, 504}

_PIECES = re.compile(r"\d|[^\W\d_]+|[^\w\s]|_")

LETTERS = 4
"""Letters a token has at least, on average, in the tokenizers of common embedders: counts come out rather high."""


class RemoteEmbedder:
    """The model `model` at `url` (".../v1"). Safe to use from several threads.

    The key is read from the environment variable `api_key_env` for each request and is kept nowhere.
    """

    def __init__(self, url: str, model: str, *, api_key_env: str | None = None, timeout_s: float = 60.0):
        self._url, self._model, self._api_key_env = url.rstrip("/"), model, api_key_env
        self._client, self._timeout_s = httpx.Client(timeout=timeout_s), timeout_s
        self.dim = len(self._request(["dimension"])[0])
        # Names server and model. It says nothing of the weights, which the server may exchange.
        self.identity: Mapping[str, Any] = {
            "model": sha256_json([self._url, model]),
            "tokenizer": "server",
            "pooling": "server",
            "length": "server",
            "precision": "server",
        }
        self.digest = sha256_json({**self.identity, "dim": self.dim})

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> RemoteEmbedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors [n, dim] of length 1, asked for in batches. Raises RemoteError when the server gives none."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for first in range(0, len(texts), BATCH):
            batch = list(texts[first : first + BATCH])
            found = np.asarray(self._request(batch), np.float32)
            if found.shape != (len(batch), self.dim):
                raise RemoteError(f"{self._shown}: vectors of shape {found.shape}, not {(len(batch), self.dim)}")
            norms = np.linalg.norm(found, axis=1, keepdims=True)
            out[first : first + len(batch)] = found / np.maximum(norms, 1e-12)
        return out

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        return [np.zeros((0, self.dim), np.float32) for _ in texts]

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        return self.encode(texts), self.encode_tokens(texts)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        return self.encode([text])[0], np.zeros((0, self.dim), np.float32)

    def count_tokens(self, text: str) -> int:
        """An estimate: each digit and each sign is one, of letters every four begun."""
        pieces = _PIECES.findall(text)
        return sum(math.ceil(len(p) / LETTERS) if p.isascii() else len(p) for p in pieces)

    def _request(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors in the order of `texts`; what may pass by itself is tried again."""
        # An empty text is refused by some servers; a space has a vector everywhere.
        body = {"model": self._model, "input": [text if text.strip() else " " for text in texts]}
        wait, problem, headers = WAIT_S, "", self._headers()
        for attempt in range(TRIES):
            if attempt:
                time.sleep(wait)
                wait *= 2
            try:
                reply = self._send(body, headers)
            except httpx.HTTPError as error:
                problem = type(error).__name__
                continue
            except httpx.InvalidURL as error:
                raise RemoteError(f"model.embedder_url is not an address: {error}") from error
            if reply.status_code == 200:
                return self._vectors(reply, len(texts))
            problem = f"HTTP {reply.status_code}: {_said(reply, headers)}"
            if reply.status_code not in AGAIN:
                break
            wait = max(wait, _asked_to_wait(reply))
        raise RemoteError(f"the embedder {self._model!r} at {self._shown} gave no vectors: {problem}")

    def _send(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        """The reply, of bounded size and in bounded time: httpx alone bounds each read, not their sum."""
        deadline, data = time.monotonic() + self._timeout_s, bytearray()
        with self._client.stream("POST", f"{self._url}/embeddings", json=body, headers=headers) as reply:
            for piece in reply.iter_bytes():
                data += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the reply took too long")
                if len(data) > LARGEST_REPLY:
                    raise RemoteError(f"the embedder at {self._shown} answered with more than {LARGEST_REPLY:,} bytes")
            kept = {"retry-after": reply.headers["retry-after"]} if "retry-after" in reply.headers else {}
            return httpx.Response(reply.status_code, headers=kept, content=bytes(data))

    @property
    def _shown(self) -> str:
        """The address as messages show it: without a user, a password or a query, which may be secret."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def _headers(self) -> dict[str, str]:
        if not self._api_key_env:
            return {}
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            raise RemoteError(f"the environment variable {self._api_key_env} is empty; it should hold the API key")
        if not key.isascii() or not key.isprintable():
            raise RemoteError(f"the key in {self._api_key_env} holds characters that cannot be sent; set it again")
        return {"Authorization": f"Bearer {key}"}

    def _vectors(self, reply: httpx.Response, n: int) -> list[list[float]]:
        try:
            rows = sorted(reply.json()["data"], key=lambda row: int(row["index"]))
            vectors = [[float(x) for x in row["embedding"]] for row in rows]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RemoteError(
                f"the embedder at {self._shown} answered with something else than vectors: {error!r}"
            ) from error
        if len(vectors) != n or len({len(vector) for vector in vectors}) > 1:
            raise RemoteError(f"the embedder at {self._shown} gave {len(vectors)} vectors for {n} texts")
        if not all(math.isfinite(x) for vector in vectors for x in vector):
            raise RemoteError(f"the embedder at {self._shown} gave numbers that are not finite")
        return vectors


def _said(reply: httpx.Response, headers: Mapping[str, str]) -> str:
    """The server's own message, one line, without the key should it repeat it: it holds no document text, which was in
    the request."""
    try:
        message = str(reply.json()["error"]["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        message = ""
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    message = message.replace(key, "…") if key else message
    return message.splitlines()[0][:200] if message else "no reason given"


def _asked_to_wait(reply: httpx.Response) -> float:
    try:
        return min(float(reply.headers.get("retry-after", 0)), 30.0)
    except ValueError:
        return 0.0
