"""The error tree of Factform: every error a caller may see, and what it means.

Knows nothing of the rooms that raise them. Third-party errors are translated into these at the seam.

    FactformError
    ├── SettingsError          factform.toml or an environment variable is wrong
    ├── ProjectError           no project here, or one already
    ├── DocumentError          one document cannot be taken in (the reason is in the receipt)
    ├── StoreError             the ledger, a blob or the index cannot be used
    │   ├── StoreBusy          another process is writing
    │   ├── NotFound           a document, version or chunk that is not there
    │   │   └── Pruned         a version whose bytes the retention policy removed
    │   └── SyncRefused        a sync would remove most of what it took in, or all of it
    ├── ModelError             a language model or embedder cannot be used
    │   ├── FetchError         a model file is missing or its digest is wrong
    │   ├── ContextTooLong     the prompt does not fit the model's window
    │   ├── GrammarError       a schema cannot be turned into a grammar
    │   ├── Cancelled          the caller no longer wants what is being written
    │   └── RemoteError        an HTTP model answered wrongly
    ├── BehaviorError          a behaviour folder has problems (all of them, at once)
    ├── TrainingError          training must not go on (empty mask, NaN, missing end, too long)
    ├── RegistryError          an adapter is unknown, damaged or not allowed to be promoted
    ├── QueryError             a filter, a moment or a label of a question cannot be understood
    ├── AccessError            who asks is not known, or did not say who they are where that is required
    ├── CaseError              a cases, queries or qrels file is malformed
    └── RecordError            an audit record is missing or damaged
"""

from __future__ import annotations

from collections.abc import Sequence


class FactformError(Exception):
    """Base of all errors raised on purpose. The message says what, which value, what to do next."""


class SettingsError(FactformError):
    """factform.toml or an environment variable is wrong."""


class ProjectError(FactformError):
    """There is no project in this folder, or there is one already."""


class DocumentError(FactformError):
    """One document cannot be taken in. The message is the reason shown in its receipt."""


class StoreError(FactformError):
    """The ledger, a blob or the index cannot be used."""


class StoreBusy(StoreError):
    """Another process holds the writer's place."""


class NotFound(StoreError):
    """A document, version or chunk that is not in the store."""


class Pruned(NotFound):
    """A version whose bytes the retention policy removed; what is known of it is still told."""


class SyncRefused(StoreError):
    """A sync would remove most or all of a folder's documents: more likely the folder is not what it should be."""


class ModelError(FactformError):
    """A language model or embedder cannot be used."""


class FetchError(ModelError):
    """A model file is missing or its digest is wrong."""


class ContextTooLong(ModelError):
    """The prompt does not fit the model's window."""


class GrammarError(ModelError):
    """A schema cannot be turned into a grammar."""


class Cancelled(ModelError):
    """The caller set the event that says it no longer wants what is being written."""


class RemoteError(ModelError):
    """A model behind HTTP refused, broke off or answered outside the contract."""


class BehaviorError(FactformError):
    """A behaviour folder has problems; `problems` holds every one as `file:line: field: what`."""

    def __init__(self, name: str, problems: Sequence[str]):
        self.name = name
        self.problems = tuple(problems)
        listing = "\n".join(f"  {p}" for p in self.problems)
        super().__init__(f"behavior {name!r} has {len(self.problems)} problem(s):\n{listing}")


class TrainingError(FactformError):
    """Training must not go on: the result would be worthless or misleading."""


class RegistryError(FactformError):
    """An adapter is unknown, damaged or may not be promoted."""


class QueryError(FactformError):
    """A filter, a moment or a label of a question cannot be understood. The message points at the place."""


class AccessError(FactformError):
    """Who asks is not known, or did not say who they are where that is required."""


class CaseError(FactformError):
    """A cases, queries or qrels file is malformed."""


class RecordError(FactformError):
    """An audit record is missing or damaged."""
