"""Measured pictures of held-out captions: their light, their quality, and the report in docs/results.md."""
