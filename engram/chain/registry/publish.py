"""Publishes where a node serves: announced as an axon, or committed as a text; each is read back from its block."""

from engram.chain.epochs import epoch_at
from engram.chain.errors import CommittedInEpoch, NotHeld
from engram.chain.read.runtime import SUBTENSOR, RuntimeCall
from engram.chain.read.view import View
from engram.chain.registry.commitment_fields import ROOT_PREFIX, commit_fields, read_fields, with_field
from engram.chain.registry.registrations import parse_text
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included
from engram.hotkeys import Keypair


async def announce(sender: Sender, view: View, netuid: int, call: RuntimeCall, keypair: Keypair) -> Included:
    """Send a serve_axon call of `calls.serve_axon`. Raises NotHeld when the chain holds another axon, as `Sender`."""
    done = await sender.send(view, call, keypair)
    held = await sender.read_back(view, done, lambda at: at.storage(SUBTENSOR, "Axons", netuid, keypair.public_key))
    announced = held if isinstance(held, dict) else {}
    if (announced.get("ip"), announced.get("port")) != (call.arguments["ip"], call.arguments["port"]):
        raise NotHeld(done.block.number, f"holds {held!r}")
    return done


async def commit(sender: Sender, view: View, netuid: int, text: str, keypair: Keypair) -> Included:
    """Commit a text under the hotkey, before the other fields of its commitment, which stay as they are.

    An endpoint that was committed before makes room for it; for a text that is no endpoint, the first text does that is
    no root of a relay. Raises CommittedInEpoch when the hotkey has committed in
    this epoch already, CommitReplaced when the block ends with another commitment, else as `with_field` and `Sender`.
    """
    held, octets = await read_fields(view, netuid, keypair.public_key), text.encode()
    if held is not None:
        epoch = epoch_at(await view.metagraph(netuid, 0.0), view.head.number)
        if epoch.has_had(held.block):
            raise CommittedInEpoch(held.block, epoch.last_block)
    fields = with_field(held, octets, _is_endpoint if _is_endpoint(octets) else _is_free_text, leads=True)
    return await commit_fields(sender, view, netuid, fields, keypair)


def _is_free_text(octets: bytes) -> bool:
    return not octets.startswith(ROOT_PREFIX)


def _is_endpoint(octets: bytes) -> bool:
    try:
        parse_text(octets.decode("utf-8"))
    except ValueError:
        return False
    return True
