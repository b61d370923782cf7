"""Signed requests: what the whole policy costs a request, and what a replay store costs and holds.

Peers verify the same signatures in the same run, alternating with ours: they read the address and check the signature,
and nothing else (no headers, window, receiver or replays). The yardstick of the replay store is a dict and a heap.
All times are of the thread's CPU, since nothing waits here.
"""

import gc
import hashlib
import heapq
import statistics
import sys
import time
import tracemalloc
import uuid
from collections.abc import Callable

import bittensor_core
import sr25519
from substrateinterface import Keypair as SubstrateKeypair

from bench.support.report import print_line
from engram.hotkeys import Keypair, Noted, ReplayStore, Scheme, Verifier, chutes, gateway_scheme, sign_headers
from engram.hotkeys.epistula import DIPPY, V1, V2, X_EPISTULA, sign_v1
from engram.hotkeys.errors import AuthError

QUICK = "--quick" in sys.argv
ROUNDS = 5 if QUICK else 21
AT_ONCE = 200
ENTRIES = 20_000 if QUICK else 100_000
NOW_MS = 1_750_000_003_000
BODY = b'{"prompt": "a red fox", "job_id": "j-1", "steps": 20}'
WANTED = {
    "verify_v2_vs_sr25519": "<= 1.5",
    "policy_v2_vs_sr25519": "<= 0.5",
    "bad_signature_vs_sr25519": "<= 3",
    "replay_note_vs_yardstick": "<= 2.5",
    "replay_worst_vs_yardstick": "<= 2",
    "replay_bytes_per_entry": "<= 300",
}
ALICE, BOB = Keypair.from_uri("//Alice"), Keypair.from_uri("//Bob")

Request = tuple[list[tuple[bytes, bytes]], bytes]


# --- ours ------------------------------------------------------------------------------------------------------------


def requests(scheme: Scheme, count: int) -> list[Request]:
    """As many different requests of one scheme."""
    made: list[Request] = []
    for number in range(count):
        body, now_ns = BODY + b" " * number, NOW_MS * 1_000_000 + number
        if scheme is V1:
            body, headers = sign_v1(ALICE, {"prompt": "a red fox"}, now_ns=now_ns, receiver=BOB.public_key)
        else:
            headers = sign_headers(
                scheme,
                ALICE,
                now_ns=now_ns,
                method="POST",
                raw_path=b"/inference/%d" % number,
                body=body,
                uuid=str(uuid.UUID(int=number)) if "uuid" in scheme.required else "",
                receiver=BOB.public_key if "receiver" in scheme.required else None,
            )
        made.append(([(name.lower().encode(), value.encode()) for name, value in headers.items()], body))
    return made


def ours(scheme: Scheme, made: list[Request]) -> float:
    """Microseconds a request, policy and replay store included."""
    guard = Verifier(
        [scheme, *(other for other in (V2, DIPPY, V1, X_EPISTULA) if other is not scheme)],
        started_ms=0,
        replays=ReplayStore(),
        self_key=BOB.public_key,
        permitted={ALICE.public_key: None}.__contains__,
    )
    started = time.thread_time()
    for number, (headers, body) in enumerate(made):
        guard.request(headers, method="POST", raw_path=b"/inference/%d" % number, body=body, now_ms=NOW_MS)
    return _each_us(started, len(made))


def ours_refusing(made: list[Request]) -> float:
    guard = Verifier([V2], started_ms=0, replays=ReplayStore(), self_key=BOB.public_key)
    started = time.thread_time()
    for headers, body in made:
        try:
            guard.request(headers, method="POST", raw_path=b"/", body=body + b"!", now_ms=NOW_MS)
        except AuthError:
            continue
        raise RuntimeError("a wrong signature was believed")
    return _each_us(started, len(made))


def ours_signing(count: int) -> float:
    started = time.thread_time()
    for number in range(count):
        sign_headers(
            V2,
            ALICE,
            now_ns=NOW_MS * 1_000_000,
            body=BODY,
            uuid=str(uuid.UUID(int=number)),
            receiver=BOB.public_key,
        )
    return _each_us(started, count)


# --- peers -----------------------------------------------------------------------------------------------------------


def messages(made: list[Request]) -> list[tuple[str, bytes, str]]:
    """Address, message and signature of version 2 requests."""
    found = []
    for lines, body in made:
        headers = {name.decode(): value.decode() for name, value in lines}
        parts = (hashlib.sha256(body).hexdigest(), headers["epistula-uuid"], headers["epistula-timestamp"], BOB.ss58)
        found.append((headers["epistula-signed-by"], ".".join(parts).encode(), headers["epistula-request-signature"]))
    return found


def peer(check: Callable[[str, bytes, str], object], made: list[tuple[str, bytes, str]]) -> float:
    started = time.thread_time()
    for address, message, signature in made:
        check(address, message, signature)
    return _each_us(started, len(made))


def by_substrate_interface(address: str, message: bytes, signature: str) -> bool:
    return bool(SubstrateKeypair(ss58_address=address).verify(message, signature))


def by_bittensor_core(address: str, message: bytes, signature: str) -> bool:
    return bool(bittensor_core.Keypair(ss58_address=address).verify(message, bytes.fromhex(signature[2:])))


def by_sr25519(_: str, message: bytes, signature: str) -> bool:
    return bool(sr25519.verify(bytes.fromhex(signature[2:]), message, ALICE.public_key))


# --- the replay store ------------------------------------------------------------------------------------------------


def bare_store(keys: list[bytes]) -> tuple[float, float]:
    """The yardstick: the same keys into a dict, and into a heap by when they expire; microseconds each, and the longest
    in seconds."""
    held: dict[bytes, int] = {}
    due: list[tuple[int, bytes]] = []
    worst_s = 0.0
    gc.collect()
    started = time.thread_time()
    for number, key in enumerate(keys):
        at = time.thread_time()
        if key not in held:
            held[key] = NOW_MS + number // 20
            heapq.heappush(due, (held[key], key))
        worst_s = max(worst_s, time.thread_time() - at)
    return _each_us(started, len(keys)), worst_s


def store_figures() -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds a note, the longest call, and bytes an entry; and the first two of the yardstick."""
    keys = [ALICE.public_key + hashlib.sha256(number.to_bytes(8, "big")).digest() for number in range(ENTRIES)]
    store, worst_s = ReplayStore(bound=ENTRIES, per_sender=ENTRIES), 0.0
    gc.collect()
    started = time.thread_time()
    for number, key in enumerate(keys):
        at = time.thread_time()
        if store.note(key, expires_ms=NOW_MS + number // 20, now_ms=NOW_MS) is not Noted.NEW:
            raise RuntimeError("a new request was not taken")
        worst_s = max(worst_s, time.thread_time() - at)
    note_us = _each_us(started, ENTRIES)
    if store.note(bytes(64), expires_ms=NOW_MS, now_ms=NOW_MS) is not Noted.FULL:
        raise RuntimeError("a full store did not say so")
    bare_us, bare_worst_s = bare_store(keys)
    tracemalloc.start()
    held = ReplayStore(bound=ENTRIES, per_sender=ENTRIES)
    for number in range(ENTRIES):
        held.note(bytes(keys[number][:32]) + keys[number][32:], expires_ms=NOW_MS + number // 20, now_ms=NOW_MS)
    per_entry = tracemalloc.get_traced_memory()[0] / ENTRIES
    tracemalloc.stop()
    figures = {"replay_note_us": note_us, "replay_worst_ms": worst_s * 1_000, "replay_bytes_per_entry": per_entry}
    return figures, {"replay_note_us": bare_us, "replay_worst_ms": bare_worst_s * 1_000}


def _each_us(started: float, count: int) -> float:
    return (time.thread_time() - started) / count * 1e6


# --- the run ---------------------------------------------------------------------------------------------------------


def main() -> None:
    schemes: dict[str, Scheme] = {
        "v2": V2,
        "dippy": DIPPY,
        "v1": V1,
        "x_epistula": X_EPISTULA,
        "chutes_validator": chutes.of_validator(),
        "gateway": gateway_scheme.SCHEME,
    }
    made = {name: requests(scheme, AT_ONCE) for name, scheme in schemes.items()}
    bare = messages(made["v2"])
    wrong = [(address, message + b"!", signature) for address, message, signature in bare]
    runs: dict[str, Callable[[], float]] = {
        **{f"verify_{name}_us": _bound(ours, scheme, made[name]) for name, scheme in schemes.items()},
        "bad_signature_us": lambda: ours_refusing(made["v2"]),
        "sign_v2_us": lambda: ours_signing(AT_ONCE),
        "substrate_interface": lambda: peer(by_substrate_interface, bare),
        "substrate_interface_bad": lambda: peer(by_substrate_interface, wrong),
        "bittensor_core": lambda: peer(by_bittensor_core, bare),
        "bittensor_core_bad": lambda: peer(by_bittensor_core, wrong),
        "sr25519": lambda: peer(by_sr25519, bare),
    }
    took: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            took[name].append(run())
    middle = {name: statistics.median(times) for name, times in took.items()}
    store, bare_dict = store_figures()
    figures = {name: value for name, value in middle.items() if name.endswith("_us")} | store
    figures["policy_v2_us"] = middle["verify_v2_us"] - middle["sr25519"]
    ratios = {
        "verify_v2_vs_substrate_interface": middle["verify_v2_us"] / middle["substrate_interface"],
        "verify_v2_vs_bittensor_core": middle["verify_v2_us"] / middle["bittensor_core"],
        "verify_v2_vs_sr25519": middle["verify_v2_us"] / middle["sr25519"],
        "policy_v2_vs_sr25519": figures["policy_v2_us"] / middle["sr25519"],
        "bad_signature_vs_sr25519": middle["bad_signature_us"] / middle["sr25519"],
        "replay_note_vs_yardstick": store["replay_note_us"] / bare_dict["replay_note_us"],
        "replay_worst_vs_yardstick": store["replay_worst_ms"] / bare_dict["replay_worst_ms"],
        "bad_signature_vs_substrate_interface": middle["bad_signature_us"] / middle["substrate_interface_bad"],
    }
    peers = {
        "substrate_interface": {
            "verify_us": middle["substrate_interface"],
            "bad_signature_us": middle["substrate_interface_bad"],
        },
        "bittensor_core": {"verify_us": middle["bittensor_core"], "bad_signature_us": middle["bittensor_core_bad"]},
        "sr25519": {"verify_us": middle["sr25519"]},
        "yardstick": bare_dict,
    }
    print_line("signing", figures, peers, ratios, WANTED)


def _bound(run: Callable[[Scheme, list[Request]], float], scheme: Scheme, made: list[Request]) -> Callable[[], float]:
    return lambda: run(scheme, made)


if __name__ == "__main__":
    main()
