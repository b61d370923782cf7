"""Publishes where a node serves: announced as an axon, or committed as a text; each is read back from its block."""

from engram.chain.errors import CommitReplaced, NotHeld
from engram.chain.read.commitments import read_commitment
from engram.chain.read.runtime import SUBTENSOR, RuntimeCall
from engram.chain.read.view import View
from engram.chain.submit import calls
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
    """Commit a text under the hotkey. Raises CommitReplaced when the block ends with another one, as `Sender`."""
    done = await sender.send(view, calls.set_commitment(netuid, text.encode()), keypair)
    held = await sender.read_back(view, done, lambda at: read_commitment(at, netuid, keypair.public_key))
    if held is None or held.payload != text.encode():
        raise CommitReplaced(done.block.number, "nothing" if held is None else repr(held.payload))
    return done
