"""Every scheme: what we sign is believed, once, by the one it is meant for, within its window, and nothing else is."""

import hashlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.hotkeys import (
    AuthError,
    Keypair,
    ReplayStore,
    Scheme,
    SignedRequest,
    Verifier,
    chutes,
    epistula,
    profiles,
    sign_fields,
    sign_headers,
    ss58,
    verify_fields,
    verify_signed,
)
from engram.hotkeys.miner_scheme import NAMESPACE
from engram.hotkeys.python_json import JsonValue

NOW = 1_750_000_003_000
NS = NOW * 1_000_000
ALICE, BOB, CHARLIE = (Keypair.from_uri(uri) for uri in ("//Alice", "//Bob", "//Charlie"))
UUID = "11111111-2222-4000-b333-0000000a0007"

BY_HEADERS = [scheme for scheme in profiles.STRICT.values() if not scheme.fields]
BY_FIELDS = [chutes.SOCKET, chutes.PATTERN_B, NAMESPACE]
ADDRESSED = [scheme for scheme in BY_HEADERS if "receiver" in scheme.required]

of_each = settings(max_examples=settings().max_examples // 5)
"""Fewer examples for each of many schemes."""


def named(scheme: Scheme) -> str:
    return scheme.name


def signed(scheme: Scheme, body: bytes = b"{}", now_ns: int = NS, by: Keypair = ALICE) -> dict[str, str]:
    return sign_headers(
        scheme,
        by,
        now_ns=now_ns,
        method="POST",
        raw_path=b"/work",
        body=body,
        uuid=UUID if "uuid" in scheme.required else "",
        receiver=BOB.public_key if "receiver" in scheme.required else None,
    )


def judge(
    scheme: Scheme, headers: dict[str, str], body: bytes = b"{}", now_ms: int = NOW, method: str = "POST"
) -> SignedRequest:
    return verify_signed(
        scheme,
        headers.items(),
        method=method,
        raw_path=b"/work",
        body=body,
        now_ms=now_ms,
        self_key=BOB.public_key,
    )


def code(scheme: Scheme, headers: dict[str, str], body: bytes = b"{}", now_ms: int = NOW) -> str:
    with pytest.raises(AuthError) as refused:
        judge(scheme, headers, body, now_ms)
    return refused.value.code


def test_every_scheme_has_a_name_of_its_own() -> None:
    assert list(profiles.LENIENT) == list(profiles.STRICT)
    assert all(name == scheme.name for name, scheme in profiles.STRICT.items())


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
@of_each
@given(body=st.binary(max_size=200), ahead_ns=st.integers(-1_000_000_000, 1_000_000_000))
def test_what_we_sign_is_believed(scheme: Scheme, body: bytes, ahead_ns: int) -> None:
    found = judge(scheme, signed(scheme, body, NS + ahead_ns), body)
    assert (found.public_key, found.scheme) == (ALICE.public_key, scheme.name)
    assert found.receiver == (BOB.public_key if scheme in ADDRESSED else None)


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
@of_each
@given(data=st.data())
def test_no_changed_character_is_believed_as_another_request(scheme: Scheme, data: st.DataObject) -> None:
    headers = signed(scheme)
    name = data.draw(st.sampled_from(sorted(headers)))
    value = headers[name]
    at = data.draw(st.integers(0, len(value) - 1))
    changed = value[:at] + data.draw(st.characters(min_codepoint=33, max_codepoint=255)) + value[at + 1 :]
    before = judge(scheme, headers)
    try:
        after = judge(scheme, headers | {name: changed})
    except AuthError:
        return
    assert (after.replay_key, after.public_key) == (before.replay_key, before.public_key)


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
@of_each
@given(data=st.data())
def test_no_header_breaks_the_verifier(scheme: Scheme, data: st.DataObject) -> None:
    headers = {name: data.draw(st.text(max_size=140)) for name in scheme.headers}
    with pytest.raises(AuthError):
        judge(scheme, signed(scheme) | headers if data.draw(st.booleans()) else headers)


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
@of_each
@given(offset_ms=st.integers(-700_000, 700_000))
def test_the_window_is_the_tables_and_includes_its_bounds(scheme: Scheme, offset_ms: int) -> None:
    now_ms = NOW + offset_ms
    headers = signed(scheme)
    if now_ms - NOW > scheme.past_ms:
        assert code(scheme, headers, now_ms=now_ms) == "stale"
    elif NOW - now_ms > scheme.future_ms:
        assert code(scheme, headers, now_ms=now_ms) == "future"
    else:
        assert judge(scheme, headers, now_ms=now_ms).skew_ms == -offset_ms


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
def test_both_ends_of_the_window_pass_and_the_next_millisecond_does_not(scheme: Scheme) -> None:
    headers = signed(scheme)
    assert judge(scheme, headers, now_ms=NOW + scheme.past_ms).skew_ms == -scheme.past_ms
    assert judge(scheme, headers, now_ms=NOW - scheme.future_ms).skew_ms == scheme.future_ms
    assert code(scheme, headers, now_ms=NOW + scheme.past_ms + 1) == "stale"
    assert code(scheme, headers, now_ms=NOW - scheme.future_ms - 1) == "future"


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
def test_all_that_is_required_is_wanted_exactly_once(scheme: Scheme) -> None:
    headers = signed(scheme)
    for name, part in scheme.headers.items():
        if part not in scheme.required:
            continue
        kept = {spelled: value for spelled, value in headers.items() if spelled.lower() != name}
        left_open = part == "receiver" and scheme.name != "dippy"
        assert code(scheme, kept) == ("signed_for_missing" if left_open else "missing_header")
        again = [*headers.items(), *((spelled, value) for spelled, value in headers.items() if spelled.lower() == name)]
        with pytest.raises(AuthError) as refused:
            verify_signed(scheme, again, method="POST", raw_path=b"/work", body=b"{}", now_ms=NOW)
        assert refused.value.code == "duplicate_header"


@pytest.mark.parametrize("scheme", [each for each in BY_HEADERS if each.name != "gateway"], ids=named)
@pytest.mark.parametrize(
    "alias",
    [
        ss58.encode(ALICE.public_key, 0),
        ss58.encode(ALICE.public_key, 2),
        ALICE.public_key.hex(),
        "0x" + ALICE.public_key.hex(),
        ALICE.ss58 + " ",
        ALICE.ss58.lower(),
        "1" + ALICE.ss58,
    ],
)
def test_a_key_has_one_spelling(scheme: Scheme, alias: str) -> None:
    (name,) = (name for name, part in scheme.headers.items() if part == "hotkey")
    headers = {spelled: alias if spelled.lower() == name else value for spelled, value in signed(scheme).items()}
    assert code(scheme, headers) == "malformed"


@pytest.mark.parametrize("scheme", ADDRESSED, ids=named)
def test_a_request_for_another_is_refused(scheme: Scheme) -> None:
    with pytest.raises(AuthError) as refused:
        verify_signed(
            scheme,
            signed(scheme).items(),
            method="POST",
            raw_path=b"/work",
            body=b"{}",
            now_ms=NOW,
            self_key=CHARLIE.public_key,
        )
    assert refused.value.code == "signed_for_mismatch"


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
def test_who_may_call_is_asked_before_the_signature_is_looked_at(scheme: Scheme) -> None:
    (name,) = (name for name, part in scheme.headers.items() if part == "signature")
    spoilt = {
        spelled: scheme.prefixes.get("signature", "") + "0x" + "00" * 64 if spelled.lower() == name else value
        for spelled, value in signed(scheme).items()
        if spelled != "Epistula-Signature"
    }
    asked: list[bytes] = []
    with pytest.raises(AuthError) as refused:
        verify_signed(
            scheme,
            spoilt.items(),
            method="POST",
            raw_path=b"/work",
            body=b"{}",
            now_ms=NOW,
            self_key=BOB.public_key,
            admit=asked.append,
        )
    assert (asked, refused.value.code) == ([ALICE.public_key], "bad_signature")


@pytest.mark.parametrize("scheme", BY_FIELDS, ids=named)
def test_events_are_signed_by_their_fields(scheme: Scheme) -> None:
    fields = sign_fields(scheme, ALICE, {"namespace": "mine", "gpu_info": {"gpu_count": 0}}, now_ns=NS)
    assert verify_fields(scheme, fields, now_ms=NOW).public_key == ALICE.public_key
    for name, part in scheme.fields.items():
        values: list[JsonValue] = [None, 7, True, [], {}, "", "x", "0x" + "00" * 64, CHARLIE.ss58, -1, 10**30]
        for value in values:
            with pytest.raises(AuthError):
                verify_fields(scheme, {**fields, name: value}, now_ms=NOW)
        assert part in scheme.required
    with pytest.raises(AuthError):
        verify_fields(scheme, fields, now_ms=NOW + scheme.past_ms + 1)


@of_each
@given(content=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.text(max_size=5), max_size=3))
def test_a_version_1_body_is_believed_as_it_was_sent_and_in_no_other_spelling(content: dict[str, float | str]) -> None:
    bounded = {name: value for name, value in content.items() if value not in (float("inf"), float("-inf"))}
    body, headers = epistula.sign_v1(ALICE, {**bounded}, now_ns=NS, receiver=BOB.public_key)
    assert judge(epistula.V1, headers, body).public_key == ALICE.public_key
    respelled = json.dumps(json.loads(body), separators=(",", ":")).encode()
    assert code(epistula.V1, headers, respelled) == "bad_signature"
    assert (
        judge(profiles.LENIENT["hone"], headers, respelled).replay_key == judge(epistula.V1, headers, body).replay_key
    )


@of_each
@given(body=st.binary(max_size=60) | st.builds(lambda text: b'{"nonce":' + text + b"}", st.binary(max_size=40)))
def test_no_body_breaks_the_verifier(body: bytes) -> None:
    headers = {"Body-Signature": "0x" + "00" * 64}
    for scheme in (epistula.V1, profiles.LENIENT["hone"]):
        with pytest.raises(AuthError):
            judge(scheme, headers, body)


ENVELOPE = f'"nonce":{NS},"signed_by":"{ALICE.ss58}","signed_for":"{BOB.ss58}","version":1'


def enveloped(content: str) -> str:
    return '{"data":' + content + "," + ENVELOPE + "}"


@pytest.mark.parametrize(
    "body",
    [
        "{" + ENVELOPE + "," + ENVELOPE + "}",
        enveloped('{"a":1,"a":2}'),
        enveloped("NaN"),
        enveloped("[" * 100 + "]" * 100),
        enveloped("[" * 50_000 + "]" * 50_000),
        "[" + enveloped("1") + "]",
        "\ufeff" + enveloped("1"),
    ],
    ids=lambda body: body[:20],
)
def test_a_signed_body_that_two_readers_could_read_differently_is_refused(body: str) -> None:
    text = body.encode()
    headers = {"Body-Signature": "0x" + ALICE.sign(text).hex()}
    assert code(epistula.V1, headers, text) == "malformed"
    assert code(profiles.LENIENT["hone"], headers, text) == "malformed"


def test_an_unsigned_body_is_not_read_in_full() -> None:
    """Reading 80,000 lists takes 35 ms: a body that is not signed is refused for what its signing fields say."""
    text = enveloped("[" + ",".join(["[]"] * 80_000) + "]").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engram.hotkeys.scheme.parse_object", lambda content: pytest.fail("it was read"))
        assert code(epistula.V1, {"Body-Signature": "0x" + "00" * 64}, text) == "bad_signature"
        assert code(epistula.V1, {"Body-Signature": "0x" + ALICE.sign(text).hex()}, text, NOW + 5_001) == "stale"


def test_a_version_1_body_without_a_receiver_is_for_lenient_receivers() -> None:
    body, headers = epistula.sign_v1(ALICE, None, now_ns=NS)
    assert code(epistula.V1, headers, body) == "signed_for_missing"
    assert judge(profiles.LENIENT["epistula-v1"], headers, body).receiver is None


def test_a_body_too_large_to_be_read_before_it_is_believed_is_refused() -> None:
    body, headers = epistula.sign_v1(ALICE, "x" * 262_144, now_ns=NS, receiver=BOB.public_key)
    assert code(epistula.V1, headers, body) == "malformed"
    assert code(epistula.V1, headers, b"[]") == "malformed"


@pytest.mark.parametrize("field", ["signed_by", "nonce", "data"])
def test_a_version_1_body_that_is_no_text_is_malformed_and_no_crash(field: str) -> None:
    body, headers = epistula.sign_v1(ALICE, {"x": 1}, now_ns=NS, receiver=BOB.public_key)
    whole = json.loads(body) | {field: "?"}
    text = json.dumps(whole).encode().replace(b"?", b"\xff")
    signed = {"Body-Signature": "0x" + ALICE.sign(text).hex()}
    assert code(epistula.V1, headers, text) in ("malformed", "bad_signature")
    assert code(epistula.V1, signed, text) == "malformed"


def test_nothing_is_signed_without_what_the_scheme_requires() -> None:
    with pytest.raises(ValueError, match="receiver"):
        sign_headers(epistula.V2, ALICE, now_ns=NS, uuid=UUID)
    with pytest.raises(ValueError, match="uuid"):
        sign_headers(epistula.V2, ALICE, now_ns=NS, receiver=BOB.public_key)
    with pytest.raises(ValueError, match="UUID"):
        sign_headers(epistula.V2, ALICE, now_ns=NS, receiver=BOB.public_key, uuid="a.b")


def test_a_purpose_is_signed_where_there_is_no_body() -> None:
    for scheme, plain in (
        (chutes.of_miner("sockets"), chutes.of_miner()),
        (chutes.of_validator("sockets"), chutes.of_validator()),
    ):
        assert judge(scheme, signed(scheme, b""), b"").skew_ms == 0
        assert code(plain, signed(scheme, b""), b"") == "bad_signature"
        assert judge(plain, signed(scheme, b"x"), b"x").skew_ms == 0


def test_an_answer_is_signed_for_one_request_of_one_validator() -> None:
    headers = epistula.sign_answer(ALICE, b"answer", uuid=UUID, receiver=BOB.public_key, now_ns=NS)

    def verified(body: bytes = b"answer", sender: Keypair = ALICE, to: Keypair = BOB, uuid: str | None = UUID) -> str:
        try:
            epistula.verify_answer(
                headers.items(),
                body,
                now_ms=NOW,
                self_key=to.public_key,
                sender=sender.public_key,
                request_uuid=uuid,
            )
        except AuthError as refused:
            return refused.code
        return "accept"

    assert (verified(), verified(uuid=None), verified(uuid=UUID.upper())) == ("accept",) * 3
    assert verified(body=b"other") == "bad_signature"
    assert verified(sender=CHARLIE) == "not_permitted"
    assert verified(to=CHARLIE) == "signed_for_mismatch"
    assert verified(uuid="11111111-2222-4000-b333-0000000a0008") == "replay"


# --- the whole policy ------------------------------------------------------------------------------------------------


def verifier(*schemes: Scheme, started_ms: int = 0, bound: int = 100) -> Verifier:
    return Verifier(schemes, started_ms=started_ms, replays=ReplayStore(bound=bound), self_key=BOB.public_key)


def ask(guard: Verifier, headers: dict[str, str], body: bytes = b"{}", now_ms: int = NOW, method: str = "POST") -> str:
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    try:
        return guard.request(lines, method=method, raw_path=b"/work", body=body, now_ms=now_ms).scheme
    except AuthError as refused:
        return refused.code


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
def test_a_request_is_believed_once_however_it_is_spelled(scheme: Scheme) -> None:
    guard = verifier(scheme)
    headers = signed(scheme)
    assert ask(guard, headers) == scheme.name
    assert ask(guard, {name.upper(): value for name, value in headers.items()}) == "replay"
    if scheme.past_ms >= 10_000:
        assert ask(guard, headers, now_ms=NOW + scheme.past_ms) == "replay"


@pytest.mark.parametrize("scheme", BY_HEADERS, ids=named)
def test_reading_may_be_repeated_where_two_readings_are_one_message(scheme: Scheme) -> None:
    guard = verifier(scheme)
    headers = sign_headers(
        scheme,
        ALICE,
        now_ns=NS,
        method="GET",
        raw_path=b"/work",
        uuid=UUID if "uuid" in scheme.required else "",
        receiver=BOB.public_key,
    )
    assert ask(guard, headers, b"", method="GET") == scheme.name
    repeated = ask(guard, headers, b"", method="GET")
    assert repeated == (scheme.name if scheme.repeatable else "replay")
    assert ask(guard, headers, b"", method="POST") in ("replay", "bad_signature")


def test_a_request_of_one_dialect_is_no_new_one_in_another() -> None:
    guard = verifier(epistula.V2, epistula.DIPPY)
    headers = signed(epistula.V2)
    assert ask(guard, headers) == "epistula-v2"
    moved = {name: value for name, value in headers.items() if name != "Epistula-Version"}
    signature = moved.pop("Epistula-Request-Signature")
    assert ask(guard, moved | {"Authorization": f"Epistula {signature}"}) == "replay"


def test_one_verifier_knows_its_schemes_by_their_names() -> None:
    with pytest.raises(ValueError, match="one name"):
        verifier(chutes.of_miner(), chutes.of_miner("sockets"))


def test_judging_alone_notes_nothing() -> None:
    guard = verifier(epistula.V2, bound=1)
    lines = [(name.encode(), value.encode()) for name, value in signed(epistula.V2).items()]
    judged = [guard.judge(lines, method="POST", raw_path=b"/", body=b"{}", now_ms=NOW) for _ in range(2)]
    assert judged[0] == judged[1]
    guard.note(judged[0], method="POST", now_ms=NOW)
    with pytest.raises(AuthError, match="received before"):
        guard.note(judged[1], method="POST", now_ms=NOW)


def test_two_signatures_at_once_are_refused() -> None:
    both = signed(epistula.V2) | signed(epistula.X_EPISTULA)
    assert ask(verifier(epistula.V2, epistula.X_EPISTULA), both) == "malformed"


def test_an_unsigned_request_is_told_what_is_missing() -> None:
    assert ask(verifier(epistula.V2, epistula.X_EPISTULA), {"Host": "x"}) == "missing_header"
    assert ask(verifier(epistula.V2), {"Epistula-Request-Signature": "0x"}) == "missing_header"


def test_a_full_store_refuses_new_requests_and_still_knows_the_old() -> None:
    guard = verifier(epistula.X_EPISTULA, bound=2)
    requests = [signed(epistula.X_EPISTULA, now_ns=NS + number) for number in range(3)]
    assert [ask(guard, each) for each in requests] == ["x-epistula", "x-epistula", "busy"]
    assert ask(guard, requests[0]) == "replay"


def test_a_bad_signature_takes_no_room() -> None:
    guard = verifier(epistula.V2, bound=1)
    assert ask(guard, signed(epistula.V2), b"other") == "bad_signature"
    assert ask(guard, signed(epistula.V2)) == "epistula-v2"


@pytest.mark.parametrize(
    ("scheme", "floor_ms"),
    [(epistula.V2, 2_000), (epistula.X_EPISTULA, 2_000), (epistula.V1, 2_000)],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_what_the_process_before_may_have_taken_is_refused(scheme: Scheme, floor_ms: int) -> None:
    def answer(offset_ms: int) -> str:
        guard = verifier(scheme, started_ms=NOW)
        stamp_ns = (NOW + offset_ms) * 1_000_000
        if scheme is epistula.V1:
            body, headers = epistula.sign_v1(ALICE, None, now_ns=stamp_ns, receiver=BOB.public_key)
            return ask(guard, headers, body, now_ms=NOW + offset_ms)
        return ask(guard, signed(scheme, now_ns=stamp_ns), now_ms=NOW + offset_ms)

    assert [answer(offset) for offset in (-1, 0, floor_ms - 1)] == ["before_start"] * 3
    assert answer(floor_ms) == scheme.name


def test_a_clock_set_back_makes_old_requests_stale() -> None:
    guard = verifier(epistula.V2)
    headers = signed(epistula.V2)
    ask(guard, headers)
    other = sign_headers(
        epistula.V2,
        ALICE,
        now_ns=NS + 60_000 * 1_000_000,
        uuid="11111111-2222-4000-b333-0000000a0008",
        receiver=BOB.public_key,
        body=b"{}",
    )
    assert ask(guard, other, now_ms=NOW + 60_000) == "epistula-v2"
    assert ask(guard, headers) == "stale"


def test_an_event_is_believed_once() -> None:
    guard = verifier()
    fields = sign_fields(chutes.PATTERN_B, ALICE, {}, now_ns=NS)
    assert guard.event(chutes.PATTERN_B, fields, now_ms=NOW).public_key == ALICE.public_key
    with pytest.raises(AuthError, match="received before"):
        guard.event(chutes.PATTERN_B, fields, now_ms=NOW)


def test_what_admit_raises_is_what_the_caller_gets() -> None:
    class Limited(Exception):
        pass

    def admit(public_key: bytes) -> None:
        raise Limited(public_key)

    guard = Verifier(
        [epistula.V2],
        started_ms=0,
        replays=ReplayStore(),
        self_key=BOB.public_key,
        permitted=lambda public_key: public_key == ALICE.public_key,
        admit=admit,
    )
    with pytest.raises(Limited):
        ask(guard, signed(epistula.V2))
    assert ask(guard, signed(epistula.V2, by=CHARLIE)) == "not_permitted"


@pytest.mark.parametrize("stamp", [str(NOW), str(NOW // 1_000)])
@pytest.mark.parametrize("profile", [profiles.STRICT, profiles.LENIENT], ids=["strict", "lenient"])
def test_a_stamp_in_a_coarser_unit_than_nanoseconds_is_an_old_one(profile: Mapping[str, Scheme], stamp: str) -> None:
    message = f"{stamp}.{hashlib.sha256(b'{}').hexdigest()}".encode()
    headers = {
        "X-Epistula-Timestamp": stamp,
        "X-Epistula-Hotkey": ALICE.ss58,
        "X-Epistula-Signature": ALICE.sign(message).hex(),
    }
    assert code(profile["x-epistula"], headers) == "stale"
    body, signing = epistula.sign_v1(ALICE, None, now_ns=int(stamp), receiver=BOB.public_key)
    assert code(profile["epistula-v1"], signing, body) == "stale"
