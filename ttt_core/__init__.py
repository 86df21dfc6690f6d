"""Test-time training for ARC grid puzzles: four rooms (`arc`, `model`, `solve`, `run`); data flows down."""

__version__ = "0.1.0"
