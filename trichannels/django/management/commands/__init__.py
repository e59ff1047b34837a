"""Commands of ``manage.py``: ``runserver``, ``runworker``, ``channels_status``."""
