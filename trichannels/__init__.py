"""Django Channels' architecture on structured concurrency: a nursery owns each socket's application instance.

The package is laid out in floors; a file imports only from the floors below its own
(``tests/test_floors.py`` guards it):

1. ``backoff``, ``exceptions``, ``seam``
2. ``bridge``, ``events``, ``inbox``, ``nursery``, ``layers.base``, ``layers.serializers``
3. ``protocol``, ``routing``, ``middleware``, ``worker``, ``security.websocket``, ``db``, ``sessions``, ``auth``
4. ``instance``, ``layers.memory``, ``layers.broadcast``, ``layers.redis``
5. ``layers`` (lazy: ``get_channel_layer``, ``InMemoryChannelLayer``)
6. ``consumer``, ``server``
7. ``generic``, ``django``
8. ``cli``, ``demo``, ``testing``, ``upgrade``

Nothing inside the package imports this file.
"""

__version__ = "0.1.0"
