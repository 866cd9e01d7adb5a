"""Faults made on purpose, and what a data layer holds after them. `run.py` runs them all."""
