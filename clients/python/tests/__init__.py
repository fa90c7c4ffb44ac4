"""Tests of the client library. `test` beside this folder runs them."""
