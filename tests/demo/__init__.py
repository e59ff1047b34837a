"""Tests of ``trichannels.demo`` without a server; ``tests/browser`` drives the page."""
