"""Registers a hotkey on a subnet by burning TAO of its coldkey."""

import msgspec

from engram import wire
from engram.chain.errors import NotPaid
from engram.chain.model import RAO_PER_TAO
from engram.chain.read.runtime import SUBTENSOR
from engram.chain.read.view import View
from engram.chain.submit import calls
from engram.chain.submit.sender import Sender
from engram.chain.submit.submit_extrinsic import Included
from engram.hotkeys import Keypair, PublicKey, ss58


class RegistrationTerms(msgspec.Struct, frozen=True):
    """What a registration takes at one block."""

    netuid: int
    payer: PublicKey
    uid: int | None
    """The hotkey's uid when it is registered already."""
    is_open: bool
    """Whether the subnet takes registrations at all."""
    burn_rao: int
    balance_rao: int
    """Free balance of the payer."""


class PaidRegistration(msgspec.Struct, frozen=True):
    """A registration that was paid for."""

    included: Included
    uid: int | None
    """None when another registration in the same block took the uid again."""


class _Balance(msgspec.Struct):
    free: int


class _Account(msgspec.Struct):
    data: _Balance


async def read_terms(view: View, netuid: int, hotkey: PublicKey, payer: PublicKey, now_s: float) -> RegistrationTerms:
    """Return the terms at the view's block. `now_s` is monotonic."""
    metagraph = await view.metagraph(netuid, now_s)
    account = await view.storage("System", "Account", payer)
    neuron, parameters = metagraph.neuron(hotkey), metagraph.parameters
    return RegistrationTerms(
        netuid=netuid,
        payer=payer,
        uid=None if neuron is None else neuron.uid,
        is_open=parameters.registration_allowed,
        burn_rao=parameters.burn_rao,
        balance_rao=wire.convert(account, _Account).data.free,
    )


def require_payable(terms: RegistrationTerms, limit_tao: float | None) -> None:
    """Raise NotPaid unless the subnet is open and the cost is within the limit (None: no limit) and the balance."""
    cost, balance = terms.burn_rao / RAO_PER_TAO, terms.balance_rao / RAO_PER_TAO
    if not terms.is_open:
        raise NotPaid(f"SubNetRegistrationDisabled: subnet {terms.netuid} takes no registrations now")
    if limit_tao is not None and not cost <= limit_tao:  # NaN is a limit that no cost is within.
        raise NotPaid(f"registering costs {cost:.9f} TAO, more than the limit of {limit_tao:g}; nothing was paid")
    if terms.balance_rao < terms.burn_rao:
        payer = ss58.encode(terms.payer)
        raise NotPaid(f"registering costs {cost:.9f} TAO, {payer} has {balance:.9f}; nothing was paid")


async def register(
    sender: Sender, view: View, netuid: int, coldkey: Keypair, hotkey: PublicKey, limit_rao: float
) -> PaidRegistration:
    """Burn at most `limit_rao` of the coldkey for the hotkey's uid.

    Raises NotPaid when the cost at the view's block exceeds the limit, and else as `Sender`.
    """
    burn_rao = wire.convert(await view.storage(SUBTENSOR, "Burn", netuid), int)
    if burn_rao > limit_rao:
        raise NotPaid(f"the cost has risen to {burn_rao / RAO_PER_TAO:.9f} TAO; nothing was paid")
    done = await sender.send(view, calls.burned_register(netuid, hotkey), coldkey)
    uid = await sender.read_back(view, done, lambda at: at.storage(SUBTENSOR, "Uids", netuid, hotkey))
    return PaidRegistration(done, uid if isinstance(uid, int) else None)
