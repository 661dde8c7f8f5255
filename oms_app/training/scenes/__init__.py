"""Captioned procedural scenes: the training data of the embedded models."""
