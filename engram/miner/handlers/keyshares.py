"""Stores and returns shares of a namespace's key for the key that signs for the namespace."""

from __future__ import annotations

import msgspec

from engram.api.call import Call
from engram.api.node_model import GetKeyShare, Kept, KeyShare, PutKeyShare
from engram.memory.errors import InvalidRequest, NotFound
from engram.memory.store import key_shares
from engram.miner.auth import Caller, Space, private_name
from engram.miner.errors import Refused
from engram.miner.service import Service

_SHARE_COST_BYTES = 16_384


async def put_key_share(service: Service, call: Call[PutKeyShare, Caller]) -> Kept:
    """POST /KeyShareSynapse: store a share of a namespace's key for its signer, on any node."""
    caller, space = await _own(service, call)
    share = key_shares.check_share(caller.fields)
    replace = caller.fields.get("replace", False)
    if not isinstance(replace, bool):
        raise InvalidRequest("replace must be true or false.")
    if replace and not space.bound:
        raise Refused(401, "missing_signature", "Replacing a share must be signed for this very request.")
    service.storage.admit(_SHARE_COST_BYTES, caller.signer or space.owner)
    keep = key_shares.replace if replace else key_shares.put
    owner, now = _owner(space), service.clock.now()
    room = key_shares.room_for(owner, service.gate.controller.hex())
    await service.notebook.write(lambda connection: keep(connection, owner, space.name, share, now, room))
    return Kept(stored=True)


async def get_key_share(service: Service, call: Call[GetKeyShare, Caller]) -> KeyShare:
    """POST /KeyShareRetrieve: return the share to the signer of the namespace."""
    _, space = await _own(service, call)
    share = await service.notebook.read(lambda connection: key_shares.get(connection, _owner(space), space.name))
    if share is None:
        raise NotFound("not found: no share of this namespace is kept here for this key")
    return KeyShare(**msgspec.structs.asdict(share))


async def _own(service: Service, call: Call[PutKeyShare, Caller] | Call[GetKeyShare, Caller]) -> tuple[Caller, Space]:
    """Return the namespace that the caller signed for; it may be a namespace of another node."""
    caller = await service.admit(call)
    if private_name(caller.fields) is None:
        raise InvalidRequest("A key share belongs to a private namespace: name it in namespace.")
    call.is_private = True
    return caller, await service.gate.claimed(caller)


def _owner(space: Space) -> str:
    return space.owner.hex() if space.owner is not None else space.key
