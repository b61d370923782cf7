"""`engram proxy`."""
