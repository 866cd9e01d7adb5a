"""The language model: prompts in, text in contract out.

Knows nothing of stores.
"""
