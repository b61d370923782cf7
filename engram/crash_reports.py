"""What is left of a process that a native library ends: the Python stack of each thread, on standard error."""

import contextlib
import faulthandler
import io


def enable() -> None:
    """Write every thread's stack to standard error at SIGSEGV, SIGFPE, SIGABRT, SIGBUS and SIGILL.

    Each program calls it first, children among them. Does nothing where standard error is closed.
    """
    with contextlib.suppress(RuntimeError, ValueError, OSError, io.UnsupportedOperation):
        faulthandler.enable()
