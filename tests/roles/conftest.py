from tests.crashes import crashes

__all__ = ["crashes"]
