"""The whole house on one chain: anvil, the official facilitator, a wire that may be spoilt, and a real gateway."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from eth_account import Account

from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.evm.chain import Chain
from tests.evm.facilitator_process import OfficialFacilitator
from tests.evm.wire import Wire

GAS_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
"""The second account that every anvil owns gas on: its well-known development key."""
SETTLER = Account.from_key(GAS_KEY).address
"""The facilitator's own account."""
RECIPIENT = Account.from_key(b"\x11" * 32).address
REFUND_KEY = b"\x22" * 32
REFUNDER = Account.from_key(REFUND_KEY).address
REFUND_FUNDS = 100_000_000

WIDE = Path(__file__).with_name("wide_gateway.py")

SETTINGS = """
[payments]
network = "base-sepolia"
recipient = "{recipient}"
facilitator_url = "{facilitator_url}"
refund_key_file = "{refund_key_file}"
rpc_url = "{rpc_url}"
settle_timeout_s = 3.0
verify_timeout_s = 3.0
answer_within_s = 6.0
confirmations = 1
breaker_failures = 1000
min_validity_left_s = 5
[provisioning]
places = {places}
"""


class Shop:
    """A running house. `gateway.url` is where buyers go."""

    def __init__(self, chain: Chain, facilitator: OfficialFacilitator, wire: Wire, gateway: GatewayProcess) -> None:
        self.chain = chain
        self.facilitator = facilitator
        self.wire = wire
        self.gateway = gateway

    @property
    def url(self) -> str:
        return self.gateway.url

    def taken(self) -> int:
        """What the recipient owns, in atomic units."""
        return self.chain.balance(RECIPIENT)


@contextmanager
def open_shop(folder: Path, *, places: int = 50, settings: str = FAST) -> Iterator[Shop]:
    """Start everything; `places` nodes may run at once, by `settings` beside those of payments."""
    with ExitStack() as stack:
        chain = stack.enter_context(Chain(folder / "anvil.log"))
        chain.mint(REFUNDER, REFUND_FUNDS)
        facilitator = stack.enter_context(OfficialFacilitator(chain.url, GAS_KEY, folder / "facilitator.log"))
        wire = stack.enter_context(Wire(lambda: facilitator.url))
        key_file = folder / "refund-key"
        key_file.write_text(REFUND_KEY.hex())
        key_file.chmod(0o600)
        filled = SETTINGS.format(
            recipient=RECIPIENT, facilitator_url=wire.url, refund_key_file=key_file, rpc_url=chain.url, places=places
        )
        gateway = stack.enter_context(GatewayProcess(folder / "data", settings=settings + filled, program=WIDE))
        yield Shop(chain, facilitator, wire, gateway.start())


def wait_until(what: Any, wanted: object, timeout: float = 20.0) -> None:
    """Ask `what()` until it returns `wanted`; the last answer otherwise fails the test."""
    deadline = time.monotonic() + timeout
    while (found := what()) != wanted:
        assert time.monotonic() < deadline, f"wanted {wanted!r}, still {found!r}"
        time.sleep(0.05)
