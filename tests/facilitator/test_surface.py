"""The play-money facilitator over HTTP: the bytes that its callers read."""

import httpx2

from engram.ledger import open_inline
from tests.facilitator.running import facilitator_url
from tests.facilitator.test_service import body, offer
from tests.payments import builders


async def test_each_endpoint_answers_as_x402_has_it() -> None:
    ledger = open_inline()
    async with facilitator_url(ledger, 1.0) as url, httpx2.AsyncClient(base_url=url) as http:
        payer = "0x" + builders.PAYER.hex()
        late = builders.authorization(valid_before=1)
        verified = await http.post("/verify", content=body(late))
        assert (verified.status_code, verified.json()["invalidReason"]) == (
            200,
            "invalid_exact_evm_payload_authorization_valid_before",
        )
        refused = await http.post("/settle", content=body(paymentRequirements=offer(scheme="upto")))
        assert (refused.status_code, refused.content) == (
            400,
            b'{"success":false,"errorReason":"unsupported_scheme","transaction":"","network":"eip155:31337"}',
        )
        kinds = (await http.get("/supported")).json()["kinds"]
        assert [(kind["x402Version"], kind["scheme"], kind["network"]) for kind in kinds] == [
            (2, "exact", "eip155:31337")
        ]
        owned = (await http.get(f"/balance/{payer}")).json()
        assert (owned["address"].lower(), owned["balance"], owned["usd"]) == (payer, "1000000", 1.0)
        unread = await http.get("/balance/0x12")
        assert (unread.status_code, unread.json()["code"]) == (400, "malformed_address")
        assert (await http.get("/health")).content == b'{"status":"ok","service":"engram-facilitator"}'
        assert (await http.get("/verify")).status_code == 405
    ledger.close()
