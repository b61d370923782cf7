"""What a process holds: no part of an area, and no framework, that it does not use."""

import subprocess
import sys

import pytest


def held_by(module: str) -> list[str]:
    code = f"import run, sys, {module}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_receiver_that_takes_no_money_holds_no_payments() -> None:
    """Nor what the payments alone need: 4 MB of memory in each such process."""
    unused = ("engram.payments", "engram.facilitator", "coincurve", "Crypto", "cffi")
    assert [name for name in held_by("engram.roles.xeris") if name.startswith(unused)] == []


@pytest.mark.parametrize("role", ["xeris", "miner", "proxy", "validator", "worker", "facilitator"])
def test_only_a_gateway_holds_a_framework(role: str) -> None:
    """A node is sold by its memory, and Quart with what it brings takes 13 MB of it."""
    brought = ("quart", "werkzeug", "flask", "jinja2", "hypercorn")
    assert [name for name in held_by(f"engram.roles.{role}") if name.startswith(brought)] == []
