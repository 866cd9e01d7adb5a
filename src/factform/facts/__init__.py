"""The data layer: documents in, exact passages out.

Knows nothing of models that write text.
"""
