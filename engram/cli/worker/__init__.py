"""`engram worker`."""
