"""A whole Django project in the process of its sockets: ``INSTALLED_APPS = ["trichannels.django", ...]``."""
