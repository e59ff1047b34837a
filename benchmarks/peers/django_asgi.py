"""The Django project by Django's own ASGI handler."""

from benchmarks.peers.django_project import set_up

set_up()

from django.core.asgi import get_asgi_application  # noqa: E402

http = get_asgi_application()
