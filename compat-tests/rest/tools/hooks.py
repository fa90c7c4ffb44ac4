"""What schemathesis does not know by itself."""

import json

import msgpack
import schemathesis


@schemathesis.serializer("application/msgpack")
def as_msgpack(_context, value):
    try:
        return msgpack.packb(value)
    except (OverflowError, ValueError, TypeError):
        # There is no such number or text in MessagePack; this is none either, and refused.
        return json.dumps(value, default=str).encode()
