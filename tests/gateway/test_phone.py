"""The app as the gateway serves it, without a browser: its files, their guards and encodings, and where it is off."""

import gzip
import hashlib
import json
from pathlib import Path

import httpx2
import msgspec
import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from config.model import Environment, Settings
from config.rules import cautions, refusals
from engram.cli.doctor.app_files import signer_finding
from engram.gateway import phone
from engram.gateway.phone import CSP, DamagedBuild, chosen_coding, is_served, read_built
from tests.gateway.surface import local_settings, running_gateway

pytestmark = pytest.mark.rules

FILES = {
    "index.html": b"<!doctype html>" + b"x" * 200,
    "a-01234567.js": b"let a;" * 50,
    "sw.js": b"//",
    "ops.html": b"<!doctype html>",
    "icon.png": b"\x89PNG",
}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small build in the place of the real one."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a-01234567.js.gz").write_bytes(gzip.compress(FILES["a-01234567.js"]))
    (tmp_path / "a-01234567.js.br").write_bytes(b"brotli")
    write_manifest(tmp_path)
    monkeypatch.setattr(phone.bind_phone, "__defaults__", (tmp_path,))
    return tmp_path


def write_manifest(folder: Path) -> None:
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    (folder / "files.json").write_text(json.dumps({"build": "engram-1", "files": files}))


async def test_the_app_is_served_with_its_guards(built: Path) -> None:
    async with running_gateway() as gateway:
        led = await gateway.client.get(f"{gateway.url}/app")
        assert (led.status_code, led.headers["location"]) == (308, "/app/")
        home = await gateway.client.get(f"{gateway.url}/app/")
        assert home.content == FILES["index.html"]
        assert home.headers["content-type"] == "text/html; charset=utf-8"
        assert home.headers["content-security-policy"] == CSP
        assert "unsafe" not in CSP
        for path in ("sw.js", "a-01234567.js", "icon.png"):
            part = await gateway.client.head(f"{gateway.url}/app/{path}")
            assert part.headers["x-content-type-options"] == "nosniff"
            assert ("content-security-policy" in part.headers) is (path == "sw.js")
        assert home.headers["referrer-policy"] == "no-referrer"
        head = await gateway.client.head(f"{gateway.url}/app/")
        assert (head.status_code, head.content) == (200, b"")


async def test_what_is_fingerprinted_is_kept_for_a_year_and_all_else_is_asked_for_again(built: Path) -> None:
    async with running_gateway() as gateway:

        async def cached(path: str) -> str:
            return (await gateway.client.head(f"{gateway.url}/app/{path}")).headers["cache-control"]

        assert await cached("a-01234567.js") == "public, max-age=31536000, immutable"
        assert [await cached(path) for path in ("", "sw.js", "icon.png", "config.json")] == ["no-cache"] * 4
        first = await gateway.client.get(f"{gateway.url}/app/sw.js")
        again = await gateway.client.get(f"{gateway.url}/app/sw.js", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("br;q=0.0,gzip;q=0", ""),
        ("", ""),
        ("identity", ""),
    ],
)
async def test_bodies_are_sent_as_the_browser_takes_them(built: Path, accepted: str, coding: str) -> None:
    assert chosen_coding(accepted, {"": 0, "br": 0, "gzip": 0}) == coding
    async with running_gateway() as gateway, httpx2.AsyncClient(trust_env=False) as client:
        request = client.build_request("GET", f"{gateway.url}/app/a-01234567.js", headers={"Accept-Encoding": accepted})
        answer = await client.send(request, stream=True)
        raw = b"".join([part async for part in answer.aiter_raw()])
        await answer.aclose()
    assert answer.headers.get("content-encoding", "") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    expected = {"br": b"brotli", "gzip": (built / "a-01234567.js.gz").read_bytes(), "": FILES["a-01234567.js"]}
    assert raw == expected[coding]


async def test_a_gateway_without_built_files_says_so_and_sells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone.bind_phone, "__defaults__", (tmp_path,))
    async with running_gateway() as gateway:
        home = await gateway.client.get(f"{gateway.url}/app/")
        assert home.status_code == 503
        assert "make phone" in home.text
        assert (await gateway.client.get(f"{gateway.url}/tiers")).status_code == 200


async def test_the_operator_names_colors_and_switches_off(built: Path) -> None:
    async with running_gateway(phone={"name": "Acme", "accent": "#123456"}) as gateway:
        config = (await gateway.client.get(f"{gateway.url}/app/config.json")).json()
        assert config == {"name": "Acme", "accent": "#123456", "network": "engram-play"}
    async with running_gateway(phone={"serve": "off"}) as gateway:
        for path in ("/app", "/app/", "/app/config.json", "/app/files.json"):
            assert (await gateway.client.get(gateway.url + path)).status_code == 404
        worker = await gateway.client.get(gateway.url + "/app/sw.js")
        assert (worker.status_code, worker.headers["cache-control"]) == (200, "no-cache")
        assert "unregister" in worker.text


def test_a_file_that_is_not_the_one_that_was_built_is_refused(tmp_path: Path) -> None:
    assert read_built(tmp_path / "none") == ()
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path)
    (tmp_path / "sw.js").write_bytes(b"//changed")
    with pytest.raises(DamagedBuild, match=r"sw\.js is not the file that was built; run `make phone`"):
        read_built(tmp_path)
    (tmp_path / "sw.js").unlink()
    with pytest.raises(DamagedBuild, match=r"sw\.js cannot be read"):
        read_built(tmp_path)
    (tmp_path / "files.json").write_text("{")
    with pytest.raises(DamagedBuild, match=r"files\.json cannot be read"):
        read_built(tmp_path)


def sign(folder: Path, seed: bytes) -> str:
    """Sign the build in a folder; return the key."""
    key = ECC.construct(curve="Ed25519", seed=seed)  # type: ignore[arg-type]  # its stub has the seed of X25519
    public = key.public_key().export_key(format="raw").hex()
    manifest = json.loads((folder / "files.json").read_text()) | {"key": public}
    content = json.dumps(manifest).encode()
    (folder / "files.json").write_bytes(content)
    signature = eddsa.new(key, "rfc8032").sign(b"engram-build-1:" + content)
    (folder / "files.sig").write_text(signature.hex() + "\n")
    return public


async def test_the_signed_list_of_files_is_served_as_it_was_built(built: Path) -> None:
    sign(built, b"\x07" * 32)
    read_built.cache_clear()
    async with running_gateway() as gateway:
        for name in ("files.json", "files.sig"):
            answer = await gateway.client.get(f"{gateway.url}/app/{name}")
            assert (answer.content, answer.headers["cache-control"]) == ((built / name).read_bytes(), "no-cache")


def test_a_signature_is_that_of_the_list_and_its_key(built: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert phone.signed_by(tmp_path_factory.mktemp("empty")) is None
    assert phone.signed_by(built) is None
    key = sign(built, b"\x07" * 32)
    assert phone.signed_by(built) == key
    signature = (built / "files.sig").read_text()
    for wrong in ("", "zz", "00" * 64, signature[:-5]):
        (built / "files.sig").write_text(wrong)
        assert phone.signed_by(built) is None
    (built / "files.sig").write_text(signature)
    manifest = (built / "files.json").read_text()
    (built / "files.json").write_text(manifest.replace("engram-1", "engram-2"))
    assert phone.signed_by(built) is None


def test_the_doctor_says_who_signed_the_app() -> None:
    other = "11" * 32
    cases = [
        (None, "", "bad"),
        (other, phone.DEVELOPMENT_KEY, "bad"),
        (phone.DEVELOPMENT_KEY, "", "note"),
        (other, other, "good"),
        (other, "", "good"),
    ]
    for key, wanted, verdict in cases:
        assert signer_finding(key, wanted).verdict == verdict


def test_outside_local_the_app_needs_https() -> None:
    plain = local_settings()
    assert is_served(plain)
    cases: list[tuple[dict[str, object], str, bool]] = [
        ({}, "auto", False),
        ({}, "off", False),
        ({"public_url": "https://shop.example"}, "auto", True),
        ({"tls_certificate": "c.pem", "tls_key": "k.pem"}, "auto", True),
    ]
    for gateway, serve, served in cases:
        settings = with_environment("testnet", gateway=gateway, phone={"serve": serve})
        assert is_served(settings) is served
        said = [each.key for each in cautions(settings)]
        assert ("phone.serve" in said) is (serve == "auto" and not served)
    refused = with_environment("testnet", phone={"serve": "on"})
    assert "phone.serve" in [each.key for each in refusals(refused, ["gateway"])]


def with_environment(environment: Environment, **sections: dict[str, object]) -> Settings:
    return msgspec.structs.replace(local_settings(**sections), environment=environment)


async def test_the_operators_page_is_on_the_operators_listener_alone(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone.bind_ops_page, "__defaults__", (built,))
    async with running_gateway() as gateway:
        assert (await gateway.client.get(f"{gateway.url}/app/ops.html")).status_code == 404
        assert (await gateway.client.get(gateway.url)).status_code == 404
        page = await gateway.client.get(f"{gateway.ops_url}/")
        assert (page.content, page.headers["content-security-policy"]) == (FILES["ops.html"], CSP)
        assert (await gateway.client.head(f"{gateway.ops_url}/app/a-01234567.js")).status_code == 200
        assert (await gateway.client.get(f"{gateway.ops_url}/app/sw.js")).status_code == 404


async def test_the_status_says_what_money_moved_today() -> None:
    async with running_gateway() as gateway:
        await gateway.buy(hours=1.0)
        money = (await gateway.client.get(f"{gateway.ops_url}/status")).json()["money"]
        assert (money["in_usd"], money["out_usd"], money["refunds_due"], money["refunds_due_usd"]) == (0.1, 0.0, 0, 0.0)
        assert 0 <= gateway.clock.now() - money["since"] < 86_400
        gateway.clock.advance(86_400)
        assert (await gateway.client.get(f"{gateway.ops_url}/status")).json()["money"]["in_usd"] == 0.0
