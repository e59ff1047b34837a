"""The parts of :class:`~trichannels.testing.layers.LayerContract`, one subject a file."""
