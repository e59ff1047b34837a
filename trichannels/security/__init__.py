"""Guards that stand in front of an application."""
