"""What the blocking and the asyncio interface have in common.

Everything here is written with `async`, but waits only through a `Runtime`. That of the blocking
interface never suspends, so there the same code runs from start to end in one call.
"""
