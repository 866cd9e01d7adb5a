"""Matrices in 8 bit: how they are rounded, packed and multiplied, by torch or by a library compiled for this machine.

Knows nothing of models or documents.
"""
