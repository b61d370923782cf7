"""Texts that no ledger on a server can keep, such as one with a NUL, wherever a stranger may send one."""

from urllib.parse import quote

import pytest

from engram.ledger import open_inline
from engram.xeris import submissions
from engram.xeris.agents import catalog
from engram.xeris.submissions import claims_of
from tests.xeris.test_judging import anchor, code, resigned, scores
from tests.xeris.test_receiver import Bench, bench

__all__ = ("bench",)

ODD = ("\0", "scores\0", "wisdom", "Scores")


class Unasked:
    """A ledger of which nothing may be asked."""

    async def read(self, query: object) -> None:
        raise AssertionError("the ledger was asked")


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("path", ["/intelligence", "/intelligence/events"])
async def test_a_list_of_an_unknown_kind_is_refused(bench: Bench, path: str, kind: str) -> None:
    status, refused = await bench.get(f"{path}?kind={quote(kind)}")
    assert (status, refused["code"]) == (422, "invalid")
    assert "scores, memory, ranking" in refused["error"]


async def test_an_empty_kind_is_all_kinds(bench: Bench) -> None:
    assert (await bench.get("/intelligence?kind="))[0] == 200


@pytest.mark.parametrize("kind", ODD)
async def test_agents_are_offered_no_unknown_kind(kind: str) -> None:
    read = catalog(Unasked(), (450,)).read  # type: ignore[arg-type]  # not a whole ledger
    assert read is not None
    assert await read(f"engram://intelligence/450/{kind}", None) is None  # type: ignore[arg-type]  # of nobody


def test_no_text_with_a_nul_of_a_payload_is_kept_as_a_text() -> None:
    assert code(resigned(scores() | {"nonce": "1000:\0:1"})) == "nonce"
    assert code(anchor(anchored="scores\0")) == "schema"
    assert code(scores(kind="a\0b")) == "schema"


def test_what_a_refused_payload_says_is_logged_without_its_nul() -> None:
    ledger = open_inline()
    body = b'{"kind":"a\\u0000b","validator_hotkey":"\\u0000","signed_hash":"\\u0000"}'
    ledger.write_now(lambda c: submissions.note(c, claims_of(body), "schema", 1.0, "a\0reason"))
    (line,) = ledger.read_now(lambda c: submissions.newest(c, 1))
    assert not any("\0" in text for text in (line.kind, line.signer, line.signed_hash, line.reason))
    assert line.kind == "a\N{REPLACEMENT CHARACTER}b"
    ledger.close()
