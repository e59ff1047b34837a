"""Parts of ``benchmarks.django_bridge``."""
