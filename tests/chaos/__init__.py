"""Faults on a schedule, against real Redis servers, server processes and sockets: ``python -m tests.chaos --help``."""
