"""The one model of the project in ``django_project``."""

from django.db import models


class Page(models.Model):
    """``benchmarks.bridging.postgres`` makes its table."""

    text = models.TextField()

    class Meta:
        app_label = "pages"
        db_table = "page"
        managed = False
