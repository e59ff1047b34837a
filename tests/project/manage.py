"""``python -m tests.project.manage COMMAND``: Django's command line, for the project of the tests.

``REDIS`` in the environment is the port of a server for the channel layer.
"""

import os
import sys

from django.core.management import execute_from_command_line

from .configured import configure

if __name__ == "__main__":
    configure()
    from django.conf import settings

    settings.ASGI_APPLICATION = "tests.project.asgi.application"
    if "REDIS" in os.environ:
        hosts = [("127.0.0.1", int(os.environ["REDIS"]))]
        settings.CHANNEL_LAYERS = {
            "default": {"BACKEND": "trichannels.layers.redis.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
        }
    execute_from_command_line(sys.argv)
