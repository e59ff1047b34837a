"""What ``compare.py`` is made of: the servers it starts, the load it sends, what it measures and tells."""
