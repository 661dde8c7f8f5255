"""Captioned procedural scenes of Lumen's second generation: the training data of the embedded models."""
