"""The program that ``soak`` looks at: blocking consumers that write to PostgreSQL, behind our server.

Its command line has the port of the database; SIGTERM drains it. Every warning is an error, or is written down.
"""

import logging
import sys
from typing import Any

from django.conf import settings

LANES = 10

if __name__ == "__main__":
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": int(sys.argv[1]),
                "USER": "postgres", "NAME": "postgres", "CONN_MAX_AGE": 60, "OPTIONS": {"application_name": "soaked"},
            }
        },
        INSTALLED_APPS=["trichannels.django"],
        TRICHANNELS={"LANES": LANES},
        LOGGING_CONFIG=None,
    )  # fmt: skip
    import django

    django.setup()

from django.db import DatabaseError, connection, transaction  # noqa: E402

from trichannels.generic.websocket import JsonWebsocketConsumer  # noqa: E402
from trichannels.routing import ProtocolTypeRouter  # noqa: E402


class Writer(JsonWebsocketConsumer):
    """Notes each message in a transaction of two statements, and says so."""

    def receive_json(self, content: Any, **more: Any) -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("insert into noted (client, n) values (%s, %s)", [content["client"], content["n"]])
                cursor.execute("select count(*) from noted where client = %s", [content["client"]])
                cursor.fetchone()
        except DatabaseError as error:
            self.send_json({"n": content["n"], "noted": False, "error": type(error).__name__})
        else:
            self.send_json({"n": content["n"], "noted": True})


def main() -> int:
    from trichannels.server.command import ServeCommand
    from trichannels.server.config import ServerConfig

    def announce(server: Any) -> None:
        sys.stdout.write(f"{server.addresses[0]}\n")
        sys.stdout.flush()

    logging.basicConfig(level="WARNING")
    config = ServerConfig.from_options({"bind": "127.0.0.1:0", "drain_time": 20.0, "backlog": 4096})
    return ServeCommand(target="tests.database.soaked:application", config=config, announce=announce).run()


application = ProtocolTypeRouter({"websocket": Writer.as_asgi()})

if __name__ == "__main__":
    sys.modules["tests.database.soaked"] = sys.modules["__main__"]  # the application is this very one
    sys.exit(main())
