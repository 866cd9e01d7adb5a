"""Tables of facts and the prose around them, from which `generate.py` writes the Tarnholm sample project."""
