"""The Redis layer, on real servers."""
