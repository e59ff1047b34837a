"""What ``redis_layer.py`` is made of: a Redis, servers on it, what they are loaded with, and what is measured."""
