"""The instrument: questions and answers in, numbers with intervals out.

Knows nothing of stores, models or training.
"""
