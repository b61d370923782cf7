"""What gateways of one ledger compare is written down and logged."""

import msgspec

from config.model import Settings
from engram.roles.gateway_ports import common_of


def test_no_secret_of_a_facilitators_address_is_compared_with_other_gateways() -> None:
    settings = Settings()
    payments = msgspec.structs.replace(settings.payments, facilitator_url="https://me:hush@pay.example/v1?key=hush2")
    common = common_of(msgspec.structs.replace(settings, payments=payments), "5Grw")
    assert common["payments.facilitator_url"] == "https://***@pay.example/v1?key=***"
    assert "hush" not in "".join(common.values())
