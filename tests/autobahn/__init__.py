"""The Autobahn fuzzing client's suite against ``trichannels serve``: ``client`` runs it, ``report`` judges.

``python -m tests.autobahn`` runs all of it, the performance cases included, and writes the report that the docs keep.
"""
