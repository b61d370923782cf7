"""POST /node-signatures: the hotkey's own signature for a node that does not have it."""

import math

import msgspec

from engram import wire
from engram.api import gateway as api
from engram.api.call import Call
from engram.api.gateway_model import NodeSignatureAnswer, NodeSignatureBody
from engram.api.serving import Endpoints
from engram.gateway.caller import Caller
from engram.http.errors import ApiError
from engram.memory.proof.statements import Statement
from engram.provisioning.countersigning import Ask, Countersigner, NotCountersigned


def bind_node_signatures(endpoints: Endpoints[Caller], countersigner: Countersigner) -> None:
    """Bind the endpoint that nodes on machines of others call."""

    async def countersign(call: Call[NodeSignatureBody, Caller]) -> NodeSignatureAnswer:
        body = call.request
        try:
            ask = Ask(
                certificate=body.certificate,
                statement=wire.convert(body.statement, Statement),
                sent_at_ms=body.sent_at_ms,
                signature=bytes.fromhex(body.signature),
            )
        except (msgspec.ValidationError, ValueError) as error:
            raise ApiError(400, "not_a_statement", f"This is signed for no node: {error}.") from None
        try:
            signature = await countersigner.sign(ask)
        except NotCountersigned as refused:
            wait_s = refused.retry_after_s
            headers = [("Retry-After", str(math.ceil(wait_s)))] if wait_s else []
            raise ApiError(refused.status, refused.code, str(refused), headers) from None
        return NodeSignatureAnswer(signature.hex())

    endpoints.bind(api.COUNTERSIGN, countersign)
