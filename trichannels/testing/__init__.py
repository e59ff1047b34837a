"""What a test of an application needs: communicators, a live server, a layer contract, injected faults."""
