"""Node to node: media over two QUIC paths with a breaker between them, metadata over a third connection."""
