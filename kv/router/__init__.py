"""Which partition owns a key, and who leads it: the ring, routing and the server that forwards."""
