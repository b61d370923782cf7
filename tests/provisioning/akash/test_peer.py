"""What npm's @akashnetwork/chain-sdk and cosmjs make of ours, and we of theirs (tests/node/akash.mjs)."""

import json
import subprocess
import time
from typing import Any, Final

import pytest
import yaml

from config.model import AkashSettings
from engram.provisioning.akash import account, jwt, messages, sdl, tx, yaml_text
from engram.provisioning.akash.compiler import compile_sdl
from engram.provisioning.akash.cosmos import Coin, Duration
from engram.provisioning.akash.messages import BidID, DeploymentID, Deposit, EscrowID, EscrowScope, Message
from engram.provisioning.akash.node_sdl import NodeOrder, node_sdl
from engram.provisioning.akash.protobuf import encode
from engram.sessions.rules import tiers
from tests.evm import node
from tests.provisioning.akash.vectors import FOLDER, public_mnemonic, vectors

pytestmark = [node.needs_node, pytest.mark.external, pytest.mark.xdist_group("akash-peer")]

_SIGNER: Final = account.Signer(account.secret_of(public_mnemonic()))
_ACCOUNT: Final = tx.Account(12345)
_PROVIDER: Final = "akash18ga02jzaq8cw52anyhzkwta5wygufgu6zsz6xc"
_ID: Final = DeploymentID(_SIGNER.address, 1_760_000_000_001)
_BID: Final = BidID(_SIGNER.address, _ID.dseq, 1, 2, _PROVIDER, 3)
_DEPOSIT: Final = Deposit(Coin("uact", "5000000"))
_TIMEOUT: Final = (1_790_000_000, 123_456_789)
_FEE: Final = tx.fee_of(200_000)


def _orders() -> list[NodeOrder]:
    environment = {
        "ENGRAM_NODE_TOKEN": "a<b&c>d é☃ yes: 'quoted' \"twice\" #",
        "ENGRAM_NODE_ENDS_AT": "1790000000",
    }
    image = f"ghcr.io/example/engram@sha256:{'ab' * 32}"
    return [
        NodeOrder(
            tier=tier,
            image=image,
            environment=environment,
            max_price_uact="60.5",
            storage_class=storage_class,
            auditors=AkashSettings().auditors,
            attributes={"region": "us-west", "host": "akash"},
        )
        for name, tier in tiers(0.1).items()
        for storage_class in ("beta3", None)
    ]


_ORDERS: Final = _orders()
_NODES: Final = [compile_sdl(node_sdl(order)) for order in _ORDERS]
_SENT: Final[list[tuple[Message, ...]]] = [
    *((messages.CreateDeployment(_ID, one.groups, one.version, _DEPOSIT),) for one in _NODES),
    (messages.CreateLease(_BID), messages.CloseLease(_BID), messages.CloseDeployment(_ID)),
    (messages.UpdateDeployment(_ID, bytes(range(32))),),
    (messages.AccountDeposit(_SIGNER.address, EscrowID(EscrowScope.DEPLOYMENT, f"{_ID.owner}/{_ID.dseq}"), _DEPOSIT),),
    (messages.MintACT(_SIGNER.address, _SIGNER.address, Coin("uakt", "12000000")),),
]
_ORDERINGS: Final = (tx.Unordered(_TIMEOUT[0] * 10**9 + _TIMEOUT[1]), tx.Ordered(7), tx.Ordered(8, 19_000_000))
_TRANSACTIONS: Final = [
    (sent, ordering, tx.sign(sent, ordering, _FEE, _ACCOUNT, _SIGNER, "memo"))
    for sent in _SENT
    for ordering in _ORDERINGS
]
_RECLAIMABLE: Final = tx.sign(
    (messages.CreateDeployment(_ID, deposit=_DEPOSIT, reclamation=messages.Reclamation(Duration(3600))),),
    _ORDERINGS[0],
    _FEE,
    _ACCOUNT,
    _SIGNER,
)
_CHAINS: Final = {"ours": ("akashnet-2", 12345), "number": ("akashnet-2", 12346), "chain": ("sandbox-2", 12345)}


def _definitions() -> dict[str, str]:
    goldens = {name: golden["sdl"] for name, golden in vectors("sdl-goldens").items() if "tee" not in name}
    files = {path.name: path.read_text() for path in sorted((FOLDER / "tiers").iterdir())}
    ours = {str(at): yaml_text.dump(sdl.document_of(node_sdl(order))) for at, order in enumerate(_ORDERS)}
    return goldens | files | ours


def _asked(raw: bytes, of: str = "ours") -> dict[str, object]:
    chain_id, number = _CHAINS[of]
    return {"raw": raw.hex(), "chain_id": chain_id, "account_number": number}


@pytest.fixture(scope="module")
def peer() -> Any:
    """Answers to all questions, from one process."""
    provider_scopes: list[tuple[jwt.Scope, ...]] = [("send-manifest",), ("status", "logs", "events")]
    questions = {
        "transactions": [
            *(_asked(signed.raw) for _, _, signed in _TRANSACTIONS),
            _asked(_RECLAIMABLE.raw),
            *(_asked(_TRANSACTIONS[0][2].raw, of) for of in _CHAINS),
        ],
        "definitions": list(_definitions().values()),
        "tokens": [jwt.issue(_SIGNER, _PROVIDER, scope, time.time()) for scope in provider_scopes],
        "sign": [
            {
                "mnemonic": public_mnemonic(),
                "messages": [{"typeUrl": messages.TYPE_URLS[type(one)], "message": _json(one)} for one in sent],
                "timeout": _TIMEOUT,
                "gas": _FEE.gas_limit,
                "amount": _FEE.amount[0].amount,
                "chain_id": "akashnet-2",
                "account_number": 12345,
            }
            for sent in _SENT[len(_NODES) :]
        ],
    }
    done = subprocess.run(
        ["node", "akash.mjs"],
        cwd=node.FOLDER,
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _json(message: Message) -> Any:
    """As proto3 writes it, for messages without groups."""
    match message:
        case messages.CreateLease(bid_id):
            return {"bid_id": _bid_json(bid_id)}
        case messages.CloseLease(bid_id, reason):
            return {"id": _bid_json(bid_id), "reason": int(reason)}
        case messages.CloseDeployment(deployment):
            return {"id": _id_json(deployment)}
        case messages.UpdateDeployment(deployment):
            return {"id": _id_json(deployment), "hash": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
        case messages.AccountDeposit(signer, escrow, deposit):
            amount = {"denom": deposit.amount.denom, "amount": deposit.amount.amount}
            return {
                "signer": signer,
                "id": {"scope": int(escrow.scope), "xid": escrow.xid},
                "deposit": {"amount": amount, "sources": [1]},
            }
        case messages.MintACT(owner, to, coins):
            return {"owner": owner, "to": to, "coins_to_burn": {"denom": coins.denom, "amount": coins.amount}}
        case _:
            raise AssertionError(f"{type(message).__name__} is signed with its groups only")


def _id_json(one: DeploymentID) -> Any:
    return {"owner": one.owner, "dseq": str(one.dseq)}


def _bid_json(one: BidID) -> Any:
    return {
        **_id_json(DeploymentID(one.owner, one.dseq)),
        "gseq": one.gseq,
        "oseq": one.oseq,
        "provider": one.provider,
    } | {"bseq": one.bseq}


@pytest.mark.parametrize("at", range(len(_TRANSACTIONS)))
def test_cosmjs_decodes_what_is_sent_and_its_signature_verifies(peer: Any, at: int) -> None:
    sent, ordering, signed = _TRANSACTIONS[at]
    read = peer["verified"][at]
    assert read["holds"]
    assert read["again"] == signed.raw.hex()
    assert read["body_again"]
    assert read["auth_again"]
    assert read["memo"] == "memo"
    assert (read["gas"], read["fee"]) == (200_000, [{"denom": "uakt", "amount": "5000"}])
    match ordering:
        case tx.Unordered():
            assert (read["unordered"], read["timeout"], read["sequence"]) == (True, [*_TIMEOUT], 0)
        case tx.Ordered(sequence, height):
            assert (read["unordered"], read["sequence"], read["timeout_height"]) == (False, sequence, height)
    assert [one["typeUrl"] for one in read["messages"]] == [messages.TYPE_URLS[type(one)] for one in sent]
    assert [one["again"] for one in read["messages"]] == [encode(one).hex() for one in sent]


def test_a_signature_verifies_for_its_own_chain_and_account_number_alone(peer: Any) -> None:
    found = peer["verified"][-len(_CHAINS) :]
    assert dict(zip(_CHAINS, [one["holds"] for one in found], strict=True)) == {
        "ours": True,
        "number": False,
        "chain": False,
    }


def test_a_reclamation_window_stands_beside_what_older_compilers_know(peer: Any) -> None:
    read = peer["verified"][len(_TRANSACTIONS)]
    assert read["holds"]
    assert read["messages"][0]["message"]["id"] == _id_json(_ID)
    raw = _RECLAIMABLE.raw
    assert tx.decode_tx(raw).messages[0] == messages.CreateDeployment(
        _ID, deposit=_DEPOSIT, reclamation=messages.Reclamation(Duration(3600))
    )


@pytest.mark.parametrize("at", range(len(_SENT) - len(_NODES)))
def test_an_unordered_transaction_is_byte_identical_to_that_of_cosmjs(peer: Any, at: int) -> None:
    theirs = peer["signed"][at]
    ours = tx.sign(_SENT[len(_NODES) + at], _ORDERINGS[0], _FEE, _ACCOUNT, _SIGNER)
    assert theirs["address"] == _SIGNER.address
    assert theirs["raw"] == ours.raw.hex()


@pytest.mark.parametrize("name", _definitions())
def test_the_typescript_sdk_compiles_our_yaml_to_the_same_manifest_and_hash(peer: Any, name: str) -> None:
    texts = _definitions()
    theirs = peer["compiled"][list(texts).index(name)]
    ours = compile_sdl(sdl.parse(yaml.safe_load(texts[name])))
    assert "errors" not in theirs
    assert theirs["version"] == ours.version.hex()
    assert theirs["json"] == ours.manifest.decode()


@pytest.mark.parametrize("at", range(len(_ORDERS)))
def test_a_node_s_groups_are_those_of_the_typescript_sdk(peer: Any, at: int) -> None:
    theirs = peer["compiled"][len(_definitions()) - len(_ORDERS) + at]
    assert theirs["groups"] == [encode(group).hex() for group in _NODES[at].groups]


def test_tokens_follow_upstream_s_schema(peer: Any) -> None:
    assert [one["isValid"] for one in peer["tokens"]] == [True, True]
