"""The protocol without input and output: bytes in, messages out, and back."""
