"""What a model costs when it is used: bytes and milliseconds a token."""
