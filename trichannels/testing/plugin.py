"""pytest fixtures for users of trichannels; registered as a plugin by the package."""
