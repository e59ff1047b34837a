"""Whoever saves or deletes a message, in a view, a consumer or the admin: all sockets of the room hear of it."""

from typing import Any

from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from trichannels.layers import get_channel_layer

from .models import Message


@receiver(post_save, sender=Message)
def tell_saved(instance: Message, **more: Any) -> None:
    """Sent once it is committed, and not at all if it is rolled back."""
    event = {"type": "room.message", "message": instance.as_json()}
    get_channel_layer().group_send(instance.room.group, event, on_commit=True)


@receiver(post_delete, sender=Message)
def tell_deleted(instance: Message, **more: Any) -> None:
    event = {"type": "room.deleted", "id": instance.pk}
    get_channel_layer().group_send(instance.room.group, event, on_commit=True)
