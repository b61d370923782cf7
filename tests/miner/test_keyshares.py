"""Key shares: kept for the key that signs for the namespace, on any node."""

from pathlib import Path

import pytest

from tests.miner import endpoints
from tests.miner.endpoints import SHARE, attested, deposit, fetch, opened
from tests.miner.nodes import CONTROLLER, STRANGER, encoded, in_namespace, serving


async def test_a_share_is_kept_on_a_node_that_never_saw_the_namespace(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert opened(await deposit(service, STRANGER, "far_away")) == {"stored": True}
        assert opened(await fetch(service, STRANGER, "far_away")) == SHARE
        assert (await fetch(service, CONTROLLER, "far_away")).status == 404
        assert (await fetch(service, STRANGER, "elsewhere")).status == 404


async def test_no_share_is_overwritten_in_silence(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        assert (await deposit(service, STRANGER, "mine")).status == 200
        assert (await deposit(service, STRANGER, "mine")).status == 200
        refused = await deposit(service, STRANGER, "mine", share_hex="dead")
        assert (refused.status, refused.body["code"]) == (409, "share_exists")
        sniffed = encoded({**SHARE, **in_namespace(STRANGER, "mine"), "share_hex": "dead", "replace": True})
        assert (await endpoints.put_key_share(service, sniffed)).status == 401
        assert opened(await fetch(service, STRANGER, "mine")) == SHARE
        assert (await deposit(service, STRANGER, "mine", share_hex="dead", replace=True)).status == 200
        assert opened(await fetch(service, STRANGER, "mine"))["share_hex"] == "dead"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"share_index": 0}, 400),
        ({"share_index": 4}, 400),
        ({"share_index": True}, 400),
        ({"threshold": 4}, 400),
        ({"threshold": 1}, 400),
        ({"total": 256}, 400),
        ({"share_hex": "abc"}, 400),
        ({"share_hex": "zz"}, 400),
        ({"share_hex": ""}, 400),
        ({"share_hex": "ab" * 5_000}, 400),
        ({"replace": 1}, 400),
    ],
)
async def test_a_bad_share_is_refused(tmp_path: Path, changed: dict[str, object], status: int) -> None:
    async with serving(tmp_path) as service:
        assert (await deposit(service, STRANGER, "mine", **changed)).status == status
        assert (await endpoints.put_key_share(service, encoded(SHARE))).status == 400
        assert (await endpoints.put_key_share(service, encoded({**SHARE, "namespace": "mine"}))).status == 403
        assert (await endpoints.get_key_share(service, encoded({"namespace": "mine"}))).status == 403


async def test_nobody_takes_the_room_that_the_controllers_shares_and_attestations_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram.memory.store.key_shares.MAX_SHARES", 2)
    monkeypatch.setattr("engram.memory.store.attestations.MAX_ATTESTATIONS", 2)
    async with serving(tmp_path, tenants="anyone") as service:
        outcomes = [await deposit(service, STRANGER, name) for name in ("one", "two", "three")]
        assert [outcome.body.get("code") for outcome in outcomes] == [None, None, "over_quota"]
        assert (await deposit(service, CONTROLLER, "mine")).status == 200
        outcomes = [await endpoints.attest(service, attested(STRANGER, name)) for name in ("one", "two", "three")]
        assert [outcome.body.get("code") for outcome in outcomes] == [None, None, "over_quota"]
        assert (await endpoints.attest(service, attested(CONTROLLER, "mine"))).status == 200
