"""``manage.py seed``: two users, a room, and something to read in it. Again, it changes nothing."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from chat.models import Message, Room

USERS = {"alice": "alice-demo", "bob": "bob-demo"}
SAID = [("alice", "Is anybody here?"), ("bob", "I am. Open two browsers, and be both of us.")]


class Command(BaseCommand):
    help = "Makes the users alice and bob (with the passwords alice-demo and bob-demo), and a lobby."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Make what is not there."""
        users = {name: self.user(name, password) for name, password in USERS.items()}
        lobby, is_new = Room.objects.get_or_create(slug="lobby", defaults={"title": "Lobby"})
        if is_new:
            # not create(): there is nobody yet to hear of them
            Message.objects.bulk_create(Message(room=lobby, author=users[name], text=text) for name, text in SAID)
        for name, password in USERS.items():
            self.stdout.write(f"log in as {name} with the password {password}")

    def user(self, name: str, password: str) -> Any:
        """Return a user, who may see the admin."""
        user, is_new = get_user_model().objects.get_or_create(
            username=name, defaults={"is_staff": True, "is_superuser": True}
        )
        if is_new:
            user.set_password(password)
            user.save()
        return user
