"""Rooms and messages in Django's admin: what is saved or deleted there reaches all sockets as well."""

from django.contrib import admin

from .models import Message, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ("slug", "title")


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ("room", "author", "text", "sent_at")
    list_filter = ("room",)
