"""Registers a hotkey where that was asked for, at most for the cost that was allowed."""

import sys
from typing import Final

from engram.chain.model import RAO_PER_TAO, EndpointHealth
from engram.chain.submit.register import require_payable
from engram.cli.chain.common import ChainOptions, WalletOptions, coldkey_of, failing, public_coldkey_of, run
from engram.cli.chain.subnet_calls import burn, read_terms
from engram.cli.failures import CommandFailed
from engram.hotkeys import PublicKey

PATIENCE_S: Final = 180.0


def register_if_needed(chain: ChainOptions, wallet: WalletOptions, hotkey: PublicKey, max_cost: float) -> None:
    """Register the hotkey with the wallet's coldkey if it is not registered, and say what is paid.

    `max_cost` is in TAO. Raises CommandFailed: nothing was paid then, unless it says so.
    """
    payer = public_coldkey_of(wallet)
    if payer is None:
        raise CommandFailed(f"{wallet.folder.coldkey_public_path} does not name a coldkey to pay with")
    healths: list[EndpointHealth] = []
    terms = run(lambda: read_terms(chain, hotkey, payer, healths))
    if terms.uid is not None:
        return
    with failing():
        require_payable(terms, max_cost)
    cost_tao = terms.burn_rao / RAO_PER_TAO
    sys.stderr.write(f"Registering on subnet {chain.netuid} burns {cost_tao:.9f} TAO.\n")
    coldkey = coldkey_of(wallet)
    done = run(lambda: burn(chain, coldkey, hotkey, max_cost * RAO_PER_TAO, PATIENCE_S, healths))
    sys.stderr.write(f"Registered as uid {done.uid}.\n")
