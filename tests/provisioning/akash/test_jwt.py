import base64
import json
from typing import Any

import jsonschema
import pytest

from engram.provisioning.akash import account, jwt
from tests.provisioning.akash.vectors import FOLDER, vectors

_CASES = vectors("jwt-cases")
_SIGNER = account.Signer(account.secret_of(_CASES["mnemonic"]))
_SCHEMA = json.loads((FOLDER / "jwt-schema.json").read_text())
_PROVIDER = "akash18ga02jzaq8cw52anyhzkwta5wygufgu6zsz6xc"
_NOW = 1_790_000_000.7
_GOLDEN = [
    case["tokenString"]
    for case in [*_CASES["es256k"], *json.loads(_CASES["templates"])]
    if "tokenString" in case and case["expected"]["alg"] == "ES256K" and not case.get("mustFail")
]


def _parts(token: str) -> tuple[bytes, bytes, bytes]:
    header, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    return header, claims, signature


def _holds(token: str) -> bool:
    *_, signature = _parts(token)
    return account.verify(signature, token.rpartition(".")[0].encode(), _SIGNER.public_key)


@pytest.mark.parametrize("token", _GOLDEN)
def test_tokens_of_the_go_implementation_are_reproduced_bit_for_bit(token: str) -> None:
    assert jwt.token_of(_parts(token)[1], _SIGNER) == token
    assert _holds(token)


def test_there_are_golden_tokens() -> None:
    assert len(_GOLDEN) == 4


@pytest.mark.parametrize(
    "case", [case for case in _CASES["es256k"] if case["mustFail"]], ids=lambda case: str(case)[:9]
)
def test_golden_tokens_that_must_fail_do(case: dict[str, Any]) -> None:
    assert not _holds(case["tokenString"])


@pytest.mark.parametrize("scope", [("send-manifest",), ("status", "logs")])
def test_a_token_follows_the_schema_and_is_good_for_one_provider(scope: tuple[jwt.Scope, ...]) -> None:
    token = jwt.issue(_SIGNER, _PROVIDER, scope, _NOW)
    header, claims, _ = _parts(token)
    said = json.loads(claims)
    jsonschema.validate(said, _SCHEMA)
    assert json.loads(header) == {"alg": "ES256K", "typ": "JWT"}
    assert said["iss"] == _SIGNER.address
    assert said["leases"]["permissions"] == [{"provider": _PROVIDER, "access": "scoped", "scope": [*scope]}]
    assert said["nbf"] == said["iat"] <= _NOW < said["exp"] <= _NOW + jwt.TTL_S
    assert _holds(token)


def test_a_scope_that_is_empty_or_names_one_twice_is_refused() -> None:
    for scope in ((), ("status", "status")):
        with pytest.raises(ValueError, match="the scope"):
            jwt.issue(_SIGNER, _PROVIDER, scope, _NOW)


@pytest.mark.parametrize("ttl_s", [0, -1, 901])
def test_a_lifetime_out_of_bounds_is_refused(ttl_s: int) -> None:
    with pytest.raises(ValueError, match=f"{ttl_s} s"):
        jwt.issue(_SIGNER, _PROVIDER, ("status",), _NOW, ttl_s)
