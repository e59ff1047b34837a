"""Django is set up before any of these tests is read."""

from .configured import configure

configure()
