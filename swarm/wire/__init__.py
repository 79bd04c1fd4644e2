"""Bytes between nodes: codec, frames, multiplexer, links over TLS websockets, authorization, routing."""
