"""Links a wallet to its owner's identity elsewhere: on the chain, and in a statement that the hotkey signs."""

import json
from collections.abc import Mapping

from engram.chain.errors import NotHeld
from engram.chain.read.runtime import SUBTENSOR
from engram.chain.read.view import View
from engram.chain.submit import calls
from engram.chain.submit.calls import IDENTITY
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included
from engram.hotkeys import Keypair


def link_statement(hotkey_address: str, fields: Mapping[str, str]) -> str:
    """Return the text that a hotkey signs to claim these fields.

    >>> link_statement("5F", {"name": "Ada"})
    'link:5F:{"name": "Ada"}'
    """
    return f"link:{hotkey_address}:{json.dumps(fields, sort_keys=True, ensure_ascii=False)}"


async def set_identity(sender: Sender, view: View, fields: dict[str, str], coldkey: Keypair) -> Included:
    """Write the identity of the coldkey and read it back.

    A runtime that keeps no identities in storage is taken at its word. Raises NotHeld when the chain holds another
    one, CallNotComposable for a field that an identity does not have, and else as `Sender`.
    """
    call = calls.set_identity(fields)
    done = await sender.send(view, call, coldkey)
    if not view.types.has_storage(SUBTENSOR, IDENTITY):
        return done
    held = await sender.read_back(view, done, lambda at: at.storage(SUBTENSOR, IDENTITY, coldkey.public_key))
    wanted = view.types.encode_storage(SUBTENSOR, IDENTITY, call.arguments)
    if held is None or view.types.encode_storage(SUBTENSOR, IDENTITY, held) != wanted:
        raise NotHeld(done.block.number, f"holds {held!r}")
    return done
