"""Models: the catalogue, downloads, loading, and the cache of loaded models."""
