"""The record of what was read and answered.

Knows nothing of how an answer is made.
"""
