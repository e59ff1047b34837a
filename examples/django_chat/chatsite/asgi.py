"""HTTP and WebSockets in one process: ``trichannels serve chatsite.asgi:application``."""

import os

from trichannels.django.http import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chatsite.settings")
http = get_asgi_application()  # sets Django up: what imports models comes after it

from chat.consumers import RoomConsumer  # noqa: E402

from trichannels.auth import AuthMiddlewareStack  # noqa: E402
from trichannels.routing import ProtocolTypeRouter, URLRouter, path  # noqa: E402
from trichannels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

sockets = URLRouter([path("ws/rooms/<slug:slug>/", RoomConsumer.as_asgi())])

application = ProtocolTypeRouter(
    {"http": http, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))},
)  # the layers are those of CHANNEL_LAYERS
