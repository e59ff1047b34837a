"""Rooms and what is said in them."""

from typing import Any

from django.conf import settings
from django.db import models


class Room(models.Model):
    slug = models.SlugField(unique=True, max_length=50)
    title = models.CharField(max_length=100)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.title

    @property
    def group(self) -> str:
        """The group of the channel layer in which all sockets of the room are."""
        return f"chat.{self.slug}"


class Message(models.Model):
    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=1000)
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"

    def as_json(self) -> dict[str, Any]:
        """What a browser needs of it."""
        return {
            "id": self.pk,
            "author": self.author.get_username(),
            "text": self.text,
            "sent_at": self.sent_at.isoformat(timespec="seconds"),
        }


def latest(room: Room, after: int = 0, most: int = 50) -> list[dict[str, Any]]:
    """Return the last messages of a room, the oldest first, of those with an id above ``after``."""
    found = Message.objects.filter(room=room, id__gt=after).select_related("author").order_by("-id")[:most]
    return [message.as_json() for message in reversed(found)]
