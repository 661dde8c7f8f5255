"""Proofs with random models of the true size, in the formats in which real ones are published."""
