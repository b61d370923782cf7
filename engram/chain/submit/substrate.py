"""Composes and signs by substrate-interface, when the operator prefers it (the extra `chain`).

It gets no socket: its requests go through our endpoint, with our deadlines. Each extrinsic has its own instance and
worker thread, because an instance must not be shared. Building one holds the interpreter for 0.9 s of CPU (metadata
V14 in Python), so this is for commands, not for servers. It never sees the secret, only a signer.
"""

from typing import Any, final

import trio

from engram.chain.errors import AnswerMalformed, CallNotComposable, CallRefused
from engram.chain.read.node import ChainEndpoint, RpcCall
from engram.chain.read.runtime import Era, RuntimeCall, SignedExtrinsic
from engram.hotkeys import Keypair

SR25519 = 1


@final
class SubstrateComposer:
    """A Composer that asks `node` for what it needs."""

    def __init__(self, node: ChainEndpoint) -> None:
        self._node = node

    async def compose(
        self, call: RuntimeCall, keypair: Keypair, nonce: int, era: Era, genesis: bytes
    ) -> SignedExtrinsic:
        """See Composer. Raises AnswerMalformed when the endpoint names another genesis block."""
        return await trio.to_thread.run_sync(self._compose, call, keypair, nonce, era, genesis)

    def _compose(self, call: RuntimeCall, keypair: Keypair, nonce: int, era: Era, genesis: bytes) -> SignedExtrinsic:
        from substrateinterface import SubstrateInterface
        from substrateinterface.exceptions import SubstrateRequestException

        substrate: Any = SubstrateInterface(url="http://our-node.invalid", ss58_format=42, auto_discover=False)
        substrate.transport = _OurTransport(self._node)
        try:
            substrate.init_runtime(block_hash="0x" + era.birth_hash.hex())
            composed = substrate.compose_call(call.pallet, call.function, _in_hex(call.arguments))
            extrinsic = substrate.create_signed_extrinsic(
                call=composed, keypair=_Signer(keypair), era=era.described, nonce=nonce
            )
            genesis_there = substrate.get_block_hash(0)
        except SubstrateRequestException as error:
            raise AnswerMalformed(f"{self._node.name}: {error}") from error
        except (ValueError, NotImplementedError, TypeError, KeyError) as error:
            raise CallNotComposable(f"{call.pallet}.{call.function}: {error}") from error
        if genesis_there != "0x" + genesis.hex():
            raise AnswerMalformed(f"{self._node.name}: another genesis block than before")
        return SignedExtrinsic(bytes(extrinsic.data.data), bytes(extrinsic.extrinsic_hash))


def _in_hex(value: Any) -> Any:
    """Return octets as 0x hex, which substrate-interface accepts wherever it takes octets."""
    match value:
        case bytes():
            return "0x" + value.hex()
        case dict():
            return {name: _in_hex(held) for name, held in value.items()}
        case list():
            return [_in_hex(held) for held in value]
        case _:
            return value


@final
class _OurTransport:
    """substrate-interface's own seam: one JSON-RPC payload in, its answer out. Called in the worker thread."""

    def __init__(self, node: ChainEndpoint) -> None:
        self._node = node

    def rpc_request(self, payload: dict[str, Any], result_handler: object = None) -> dict[str, Any]:
        if result_handler is not None:
            raise NotImplementedError("no subscriptions: this transport asks and is answered")
        call = RpcCall(payload["method"], tuple(payload["params"]))
        (answer,) = trio.from_thread.run(self._node.ask, [call])
        reply = {"jsonrpc": "2.0", "id": payload["id"]}
        if isinstance(answer, CallRefused):
            return {**reply, "error": {"code": answer.code, "message": answer.message}}
        return {**reply, "result": answer}


@final
class _Signer:
    """What substrate-interface wants of a key pair, without the secret."""

    crypto_type = SR25519

    def __init__(self, keypair: Keypair) -> None:
        self._keypair = keypair
        self.public_key = keypair.public_key
        self.ss58_address = keypair.ss58

    def sign(self, payload: Any) -> bytes:
        """Sign a ScaleBytes or bytes."""
        return self._keypair.sign(bytes(getattr(payload, "data", payload)))
