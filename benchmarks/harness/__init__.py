"""The parts of `benchmarks/speed.py` that run in the project's own environment."""
