"""Paths of the chat."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("rooms/<slug:slug>/", views.room, name="room"),
    path("rooms/<slug:slug>/say/", views.say, name="say"),
    path("rooms/<slug:slug>/messages/", views.messages, name="messages"),
]
