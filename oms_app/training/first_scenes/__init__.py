"""Captioned procedural scenes of Lumen's first generation. The shipped weights are measured against them."""
