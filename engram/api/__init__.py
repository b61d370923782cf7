"""Declares every endpoint once: its request, its answers, who may call it, and how it is served.

A surface has a table of rows (`route.Route`) over frozen Structs. Its router, decoding, encoding and signing
(`serving`), its OpenAPI document (`openapi`), the tables of the documentation (`tables`) and its clients all derive
from that table: adding an endpoint touches the table, a handler, a client method and a test.
"""
