"""Seeded exploration: plans drawn from seeds, run in the memory world, judged, and shrunk when they fail."""
