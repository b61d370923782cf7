"""What a receiver's process holds: no part of an area that it does not use."""

import subprocess
import sys


def test_a_receiver_that_takes_no_money_holds_no_payments() -> None:
    """Nor what the payments alone need: 4 MB of memory in each such process."""
    code = "import run, sys, engram.roles.xeris; print(*sys.modules)"
    held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unused = ("engram.payments", "engram.facilitator", "coincurve", "Crypto", "cffi")
    assert [name for name in held if name.startswith(unused)] == []
