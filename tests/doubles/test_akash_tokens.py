"""Tokens at a provider: the golden cases of the protocol, and what each scope opens."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.akash import tokens
from tests.doubles.akash.account import Account
from tests.doubles.akash.genesis import GENESIS_S, Genesis
from tests.doubles.akash.store import AccountRow

DATA = Path(__file__).parents[1] / "data" / "akash"
CASES = json.loads(gzip.decompress((DATA / "jwt-cases.json.gz").read_bytes()))
TEMPLATES = json.loads(CASES["templates"])
PEER = json.loads(gzip.decompress((DATA / "peer-tx-vectors.json.gz").read_bytes()))
NOW = int(GENESIS_S)
VALUES = {
    "Issuer": PEER["owner"],
    "Provider": "akash18ga02jzaq8cw52anyhzkwta5wygufgu6zsz6xc",
    "IatCurr": str(NOW),
    "NbfCurr": str(NOW),
    "Iat24h": str(NOW + 86_400),
    "Nbf24h": str(NOW + 86_400),
    "Exp48h": str(NOW + 2 * 86_400),
}


def filled(claims: dict[str, Any]) -> dict[str, Any]:
    text = re.sub(r"\{\{\.(\w+)\}\}", lambda found: VALUES[found[1]], json.dumps(claims))
    found: dict[str, Any] = json.loads(text)
    return {key: int(value) if key in ("iat", "nbf", "exp") else value for key, value in found.items()}


@pytest.mark.parametrize("case", TEMPLATES, ids=[case["description"] for case in TEMPLATES])
def test_claims_are_taken_and_refused_as_the_golden_cases_say(case: dict[str, Any]) -> None:
    claims = filled(case["claims"])
    if case["expected"]["verifyFail"]:
        with pytest.raises(tokens.Denied):
            tokens.check_claims(claims, NOW)
    else:
        tokens.check_claims(claims, NOW)


def known_key() -> Genesis:
    genesis = Genesis()
    owner = PEER["owner"]
    genesis.chain.state.accounts.put(owner, AccountRow(owner, 1, 0, bytes.fromhex(PEER["pubkey"])))
    return genesis


def test_the_peers_own_token_is_verified_by_the_key_on_the_chain() -> None:
    token = next(case["tokenString"] for case in TEMPLATES if "static token" in case["description"])
    assert tokens.owner_of(token, known_key().chain.state, GENESIS_S)[0] == PEER["owner"]
    with pytest.raises(tokens.Denied, match="signature is invalid"):
        tokens.owner_of(token[:-4] + "AAAA", known_key().chain.state, GENESIS_S)
    with pytest.raises(tokens.Denied, match="no public key"):
        tokens.owner_of(token, Genesis().chain.state, GENESIS_S)


@pytest.mark.parametrize("case", CASES["es256k"], ids=[case["description"] for case in CASES["es256k"]])
def test_what_is_not_es256k_or_not_signed_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(tokens.Denied):
        tokens.owner_of(case["tokenString"], known_key().chain.state, GENESIS_S)


def test_an_account_that_never_sent_anything_has_no_key_to_verify_with() -> None:
    genesis = Genesis()
    owner = genesis.owner
    with pytest.raises(tokens.Denied, match="no public key"):
        tokens.owner_of(owner.token(owner.claims(GENESIS_S)), genesis.chain.state, GENESIS_S)


def test_a_token_is_good_from_its_beginning_to_its_end() -> None:
    claims = Account().claims(GENESIS_S)
    tokens.check_claims(claims, GENESIS_S + 29)
    for now in (GENESIS_S - 1, GENESIS_S + 30):
        with pytest.raises(tokens.Denied):
            tokens.check_claims(claims, now)


GRANULAR = {"access": "granular", "permissions": [{"provider": "p", "access": "scoped", "scope": ["status"]}]}
DEEP = {
    "access": "granular",
    "permissions": [
        {"provider": "p", "access": "granular", "deployments": [{"dseq": 7, "scope": ["logs"]}]},
    ],
}


@pytest.mark.parametrize(
    ("leases", "scope", "provider", "dseq", "allowed"),
    [
        ({"access": "full"}, "shell", "p", 7, True),
        ({"access": "scoped", "scope": ["status"]}, "status", "p", 7, True),
        ({"access": "scoped", "scope": ["status"]}, "logs", "p", 7, False),
        (GRANULAR, "status", "p", 7, True),
        (GRANULAR, "status", "q", 7, False),
        (GRANULAR, "send-manifest", "p", 7, False),
        (DEEP, "logs", "p", 7, True),
        (DEEP, "logs", "p", 8, False),
        (DEEP, "status", "p", 7, False),
    ],
)
def test_a_token_opens_what_it_names_and_nothing_else(
    leases: dict[str, Any], scope: str, provider: str, dseq: int, allowed: bool
) -> None:
    assert tokens.allows({"leases": leases}, scope, provider, dseq) is allowed
