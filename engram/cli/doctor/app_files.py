"""Whether the app that buyers get is the one that was built."""

import hashlib
from typing import Final

import trio

from config.model import Settings
from engram.cli.doctor.finding import Finding
from engram.gateway import phone
from engram.http.client import HttpClient
from engram.http.errors import HttpError

MAX_BYTES: Final = 2_000_000
WITHIN_S: Final = 20.0


async def app_files(settings: Settings) -> list[Finding]:
    """Look at the built files, and at what `gateway.public_url` serves where that is set."""
    if not phone.is_served(settings):
        return [Finding("app", "note", "not served (phone.serve)")]
    try:
        build, files = phone.read_manifest(), phone.read_built()
    except phone.DamagedBuild as damaged:
        return [Finding("app", "bad", str(damaged))]
    if build is None:
        return [Finding("app", "note", "not built: /app says so to buyers; run `make phone`")]
    found = [
        Finding("app", "good", f"{build.build}, {len(files)} files as they were built"),
        signer_finding(phone.signed_by(), settings.phone.release_key),
    ]
    url = settings.gateway.public_url.rstrip("/")
    return [*found, await _served(url, build)] if url else found


def signer_finding(key: str | None, wanted: str) -> Finding:
    """Say who signed the build; `wanted` is the key that must have, empty for any."""
    if key is None:
        return Finding("app signed", "bad", "the signature of the build does not hold: run `make phone`")
    if wanted and key != wanted:
        return Finding("app signed", "bad", f"by {key}; phone.release_key wants {wanted}")
    if key == phone.DEVELOPMENT_KEY:
        return Finding("app signed", "note", "by the development key: the app calls itself an unverified build")
    return Finding("app signed", "good", f"by {key}")


async def _served(url: str, build: phone.PhoneBuild) -> Finding:
    http, differing = HttpClient(), list[str]()
    try:
        with trio.fail_after(WITHIN_S):
            for name, digest in build.files.items():
                if name.startswith(phone.OPS):
                    continue
                path = phone.HOME if name == phone.INDEX else f"{phone.HOME}{name}"
                answer = await http.request(
                    "GET", url + path, headers={"Accept-Encoding": "identity"}, max_bytes=MAX_BYTES
                )
                if answer.status != 200 or hashlib.sha256(answer.content).hexdigest() != digest:
                    differing.append(name)
    except (HttpError, trio.TooSlowError) as error:
        return Finding("app served", "note", f"{url}/app could not be read: {error}")
    finally:
        await http.aclose()
    if differing:
        names = ", ".join(differing[:3]) + (" …" if len(differing) > 3 else "")
        return Finding("app served", "bad", f"{url}/app serves other files than were built: {names}")
    return Finding("app served", "good", f"{url}/app serves what was built")
