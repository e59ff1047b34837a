"""The parts of the soak: the application, the process that serves it, the clients that leave it in every way."""
