"""How children are started: a closed table, the same in every form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engram import children
from engram.children import Program

ROOT = Path(__file__).parents[2]
PACKED = """
import sys
sys.prefix = {prefix!r}
sys.executable = "/opt/engram/engram"
from engram import children
sys.argv = ["engram", *{arguments!r}]
{code}
"""


def packed(prefix: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code as if in a packed folder."""
    (prefix / children.BUILD_FILE).write_text("{}")
    source = PACKED.format(prefix=str(prefix), arguments=list(arguments), code=code)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", source], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", [each for each in Program if each is not Program.AKASH_DOUBLE])
def test_every_program_of_the_table_is_a_module_that_runs_itself(program: Program) -> None:
    path = ROOT.joinpath(*program.split("."))
    source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    assert 'if __name__ == "__main__":\n    crash_reports.enable()\n' in source


def test_a_child_is_a_module_of_this_interpreter_that_the_working_directory_cannot_replace() -> None:
    assert children.command(Program.NODE, "--config", "x") == (
        sys.executable,
        "-P",
        "-m",
        "engram.miner",
        "--config",
        "x",
    )
    assert children.script("miner.py", "--port", "0") == (sys.executable, "miner.py", "--port", "0")


def test_a_child_finds_this_package_before_what_was_named_to_its_parent() -> None:
    assert children.environment({"A": "b"}) == {"A": "b", "PYTHONPATH": str(ROOT)}
    assert children.environment({"PYTHONPATH": "/x"}) == {"PYTHONPATH": f"{ROOT}{os.pathsep}/x"}


def test_in_a_packed_folder_a_child_is_the_program_again(tmp_path: Path) -> None:
    code = (
        "import json; print(json.dumps([children.command(children.Program.NODE, 'a'), "
        "children.command(children.Program.ENGRAM, 'gateway'), children.script('m.py'), "
        "children.environment({'A': 'b'})]))"
    )
    node, own, script, environment = json.loads(packed(tmp_path, code).stdout)
    assert node == ["/opt/engram/engram", "--engram-child", "engram.miner", "a"]
    assert own == ["/opt/engram/engram", "gateway"]
    assert script == ["/opt/engram/engram", "--engram-script", "m.py"]
    assert environment == {"A": "b"}


def test_a_packed_program_runs_children_of_the_table_and_scripts_and_nothing_else(tmp_path: Path) -> None:
    become = "children.become(sys.argv[1:]); print('the command line')"
    assert packed(tmp_path, become, "gateway").stdout == "the command line\n"
    refused = packed(tmp_path, become, "--engram-child", "http.server")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'http.server' is no program that Engram starts" in refused.stderr
    node = packed(tmp_path, become, "--engram-child", "engram.miner", "--what")
    assert (node.returncode, node.stderr.splitlines()[-1][:34]) == (1, "usage: python -m engram.miner --co")
    script = tmp_path / "own.py"
    script.write_text("import sys; print(sys.argv, __name__, sys.path[0])")
    ran = packed(tmp_path, become, "--engram-script", str(script), "x")
    assert ran.stdout == f"{[str(script), 'x']} __main__ {tmp_path}\n"
    for arguments in (["--engram-script", str(tmp_path / "none.py")], ["--engram-child"]):
        assert packed(tmp_path, become, *arguments).returncode == 2


def test_without_a_packed_folder_the_flags_of_children_mean_nothing() -> None:
    children.become(["--engram-child", "engram.miner"])


def test_a_packed_program_finds_certificate_authorities_and_keeps_those_that_are_named(tmp_path: Path) -> None:
    code = "import json; e = json.loads(sys.argv[1]); children.use_authorities(e); print(json.dumps(e))"
    for named in ({"SSL_CERT_FILE": "/x"}, {"SSL_CERT_DIR": "/y"}):
        assert json.loads(packed(tmp_path, code, json.dumps(named)).stdout) == named
    found = json.loads(packed(tmp_path, code, "{}").stdout)["SSL_CERT_FILE"]
    assert Path(found).is_file() or found == str(tmp_path / "share" / "ca-certificates.crt")
    own: dict[str, str] = {}
    children.use_authorities(own)
    assert own == {}
