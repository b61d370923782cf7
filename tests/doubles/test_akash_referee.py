"""cosmjs judges what the double judges: neither its decoder nor its signatures are believed because ours agree."""

import json
import subprocess
from typing import Any, Final

import pytest

from engram.provisioning.akash import account, messages, tx
from engram.provisioning.akash.cosmos import Coin
from engram.provisioning.akash.messages import DeploymentID, EscrowID, EscrowScope
from tests.doubles.akash.errors import Refused
from tests.doubles.akash.genesis import GENESIS_S, RICH, Genesis
from tests.doubles.akash.store import AccountRow
from tests.doubles.akash.transaction import check_key, check_signature, decode
from tests.evm import node
from tests.provisioning.akash.vectors import public_mnemonic

pytestmark = [node.needs_node, pytest.mark.external, pytest.mark.xdist_group("akash-peer")]

CHAIN_ID: Final = "akashnet-2"
NUMBER: Final = 12_345
SIGNER: Final = account.Signer(account.secret_of(public_mnemonic()))
MINT: Final = {"owner": SIGNER.address, "to": SIGNER.address, "coins_to_burn": {"denom": "uakt", "amount": "12000000"}}
SECONDS: Final = int(GENESIS_S) + 60


def ask(questions: dict[str, Any]) -> Any:
    command = ["node", "akash.mjs"]
    done = subprocess.run(
        command, cwd=node.FOLDER, input=json.dumps(questions), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def chain() -> Genesis:
    """A chain that knows the peer's account by its number."""
    genesis = Genesis()
    genesis.chain.fund(SIGNER.address, uakt=RICH, uact=RICH)
    genesis.chain.state.accounts.put(SIGNER.address, AccountRow(SIGNER.address, NUMBER))
    return genesis


def wanted() -> list[dict[str, Any]]:
    """Three transactions that cosmjs is to sign, a nanosecond apart."""
    mint = {
        "mnemonic": public_mnemonic(),
        "messages": [{"typeUrl": messages.TYPE_URLS[messages.MintACT], "message": MINT}],
        "gas": 300_000,
        "amount": "7500",
        "chain_id": CHAIN_ID,
        "account_number": NUMBER,
    }
    return [mint | {"timeout": [SECONDS, nanos]} for nanos in range(3)]


def changed(raw: bytes) -> list[bytes]:
    """The transaction, and it with a bit of its signature or of its body changed."""
    at_body = raw.index(b"akash1") + 8
    return [raw, *(bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]]) for at in (len(raw) - 1, len(raw) - 40, at_body))]


def cases() -> list[tuple[bytes, str, int]]:
    """Transactions, whole and changed, with the chain and the account number they are held against."""
    id_ = DeploymentID(SIGNER.address, 7)
    escrow = EscrowID(EscrowScope.DEPLOYMENT, f"{SIGNER.address}/7")
    sent: list[messages.Message] = [
        messages.CloseDeployment(id_),
        messages.AccountDeposit(SIGNER.address, escrow, messages.Deposit(Coin("uact", "5"))),
    ]
    orderings = (tx.Unordered(SECONDS * 10**9 + 1), tx.Ordered(3))
    signed = [
        tx.sign((each,), ordering, tx.fee_of(300_000), tx.Account(NUMBER), SIGNER).raw
        for each in sent
        for ordering in orderings
    ]
    against = ((CHAIN_ID, NUMBER), ("sandbox-2", NUMBER), (CHAIN_ID, NUMBER + 1))
    return [(raw, *other) for whole in signed for raw in changed(whole) for other in against]


@pytest.fixture(scope="module")
def answer() -> Any:
    """All of cosmjs' answers, from one process."""
    transactions = [{"raw": raw.hex(), "chain_id": name, "account_number": number} for raw, name, number in cases()]
    return ask({"sign": wanted(), "transactions": transactions})


def test_what_cosmjs_signs_takes_effect(answer: Any) -> None:
    genesis = chain()
    for each in answer["signed"]:
        genesis.chain.check(bytes.fromhex(each["raw"]))
    genesis.blocks()
    assert [each.code for each in genesis.chain.included.values()] == [0, 0, 0]
    assert len(genesis.chain.state.mints) == 3


def test_the_double_and_cosmjs_agree_on_every_signature(answer: Any) -> None:
    theirs = [each["holds"] for each in answer["verified"]]
    assert [holds(*case) for case in cases()] == theirs
    assert sum(theirs) == 4


def holds(raw: bytes, chain_id: str, number: int) -> bool:
    found = decode(raw)
    try:
        check_signature(found, check_key(decode(raw), SIGNER.public_key), chain_id, number)
    except Refused:
        # A changed address is another signer's: the key is not its own, whatever the signature is of.
        return False
    return True
