"""``trichannels upgrade``: a project that was written for Channels 2 to 4 becomes one for trichannels.

Rules rewrite what has an exact counterpart; what has none is listed, with the line and the cure. ``command`` begins.
"""
