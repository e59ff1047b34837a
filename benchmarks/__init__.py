"""Programs that load a server and measure it. Not installed; run them from a clone."""
