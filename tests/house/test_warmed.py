"""A program that forks from the warmed interpreter is one like any other."""

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.warmed import WarmProgram, interpreter, starts_alike

SAYS = """
import os, sys
print(os.getcwd(), os.environ, sys.argv, __name__, os.getsid(0) == os.getpid(), sys.stdin.read())
os.write(int(sys.argv[1]), b"here")
sys.exit(3)
"""


def written(folder: Path, text: str) -> str:
    (folder / "program.py").write_text(text)
    return str(folder / "program.py")


@pytest.mark.parametrize("number", [3, 515, 700, None], ids=["low", "high", "higher", "that of its orders"])
def test_its_descriptors_have_their_numbers_whatever_else_has_them(tmp_path: Path, number: int | None) -> None:
    program, (reads, writes) = written(tmp_path, SAYS), os.pipe()
    high = fcntl.fcntl(writes, fcntl.F_DUPFD, interpreter().number if number is None else number)
    with (tmp_path / "out").open("wb") as out:
        started = WarmProgram([program, str(high)], cwd=tmp_path, stdout=out.fileno(), pass_fds=(high,))
    assert started.wait(30) == 3
    os.close(writes)
    os.close(high)
    assert os.read(reads, 10) == b"here"
    os.close(reads)


def test_it_has_an_environment_a_folder_and_descriptors_of_its_own(tmp_path: Path) -> None:
    program, (reads, writes) = written(tmp_path, SAYS), os.pipe()
    with (tmp_path / "out").open("wb") as out:
        started = WarmProgram(
            [program, str(writes)],
            cwd=tmp_path,
            env={"A": "b"},
            stdout=out.fileno(),
            pass_fds=(writes,),
            start_new_session=True,
        )
    assert started.wait(30) == started.poll() == 3
    said = (tmp_path / "out").read_text()
    assert said == f"{tmp_path} environ({{'A': 'b'}}) {[program, str(writes)]} __main__ True \n"
    os.close(writes)
    assert os.read(reads, 10) == b"here"
    os.close(reads)


def test_it_is_signalled_and_waited_for_under_its_own_id(tmp_path: Path) -> None:
    program = written(tmp_path, "import sys, time\nprint(flush=True)\ntime.sleep(60)\n")
    reads, writes = os.pipe()
    started = WarmProgram([program], stdout=writes)
    os.close(writes)
    assert os.read(reads, 1) == b"\n"
    os.close(reads)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(0)
    started.kill()
    assert started.wait(30) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(started.pid, 0)


def test_what_python_reads_when_it_starts_cannot_be_had_afterwards() -> None:
    assert starts_alike({"A": "b"})
    assert starts_alike(os.environ)
    assert not starts_alike({**os.environ, "PYTHONPATH": "/somewhere/else"})


def test_what_fails_says_so(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        started = WarmProgram([written(tmp_path, "raise ValueError('no')")], stderr=out.fileno())
    assert started.wait(30) == 1
    assert (tmp_path / "out").read_text().splitlines()[-1] == "ValueError: no"


def test_a_kill_point_is_armed_by_the_environment_of_each(tmp_path: Path) -> None:
    program = written(tmp_path, "from engram import kill_points\nkill_points.point('here')\n")
    assert WarmProgram([program]).wait(30) == 0
    assert WarmProgram([program], env={"ENGRAM_TEST_KILL": "1", "ENGRAM_KILL_AT": "here"}).wait(30) == -signal.SIGKILL
