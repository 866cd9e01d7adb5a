"""The behaviour layer: examples in, adapters out.

Knows nothing of stores; retrieved contexts reach it as records.
"""
