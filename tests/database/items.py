"""A model."""

from django.db import models


class Item(models.Model):  # type: ignore[misc, unused-ignore]
    name = models.CharField(max_length=50)

    class Meta:
        app_label = "items"
