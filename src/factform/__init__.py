"""Factform: facts from documents, form from the model."""

from __future__ import annotations

__version__ = "0.1.0"
