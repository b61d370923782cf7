"""A chain double that lives: takes extrinsics, checks them as the runtime does, builds and finalises blocks.

State begins as the recording (subnet 450 with 256 uids) and changes by what blocks hold. Checked with the real
metadata: signatures over the payload that the era, nonce and genesis give, nonces, balances for the burn, and of each
call what decides it on the chain. Blocks are built when told (`seal`), or at each look at the finalized head.
"""

import gzip
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import bittensor_core
import msgspec
import sr25519

from engram.chain.errors import CallRefused
from engram.chain.read.node import Json, RpcCall
from engram.chain.read.runtime import ERA_BLOCKS, RuntimeTypes
from engram.hotkeys import ss58
from tests.fakes.chain import ChainDouble, recording

DATA = Path(__file__).parent.parent / "data" / "chain"
NETUID = 450
MAX_SPACE = 3_100
TEMPO = 10
METHOD_NOT_FOUND = CallRefused(-32601, "Method not found")
GENESIS = "0x" + "45" * 32
GENESIS_MS = 1_700_000_000_000
BLOCK_MS = 12_000
MANDATORY = {"weight": {"ref_time": 268_717_000, "proof_size": 1_493}, "class": "Mandatory", "pays_fee": "Yes"}
"""Of the timestamp that begins each block (recorded)."""
COMMITMENT = {"weight": {"ref_time": 667_297_000, "proof_size": 0}, "class": "Operational", "pays_fee": "No"}
"""Of set_commitment (recorded)."""
OTHER = {"weight": {"ref_time": 1, "proof_size": 0}, "class": "Normal", "pays_fee": "No"}
"""Of the calls that no recording is of."""


@cache
def metadata_v14() -> str:
    """What clients without metadata V15 ask for."""
    found: str = json.loads(gzip.decompress((DATA / "metadata-v14.json.gz").read_bytes()))
    return found


class Refused(Exception):
    """The runtime's dispatch error: pallet and error by name."""

    def __init__(self, pallet: int, error: int) -> None:
        super().__init__(f"{pallet}.{error}")
        self.pallet = pallet
        self.error = error


SUBTENSOR, COMMITMENTS = 7, 18


class Waiting(msgspec.Struct, frozen=True):
    """An extrinsic in the pool."""

    octets: bytes
    public_key: bytes
    nonce: int
    call: bytes
    last_block: int


class LivingChain(ChainDouble):
    """See above; the switches of ChainDouble work too."""

    def __init__(self, name: str = "living", head: int = 1100) -> None:
        super().__init__(name, head)
        self.first = head
        self.types = RuntimeTypes(bytes.fromhex(recording().metadata[2:]), 293, 1)
        self._runtime = self.types.core
        self._events_type = self._runtime.storage_entry("System", "Events").value_type
        self.hashes: dict[int, str] = {}
        """Hashes that blocks have in the place of made-up ones."""
        self.states: dict[int, dict[str, str | None]] = {head: {}}
        self.blocks: dict[int, list[bytes]] = {}
        self.pool: list[Waiting] = []
        self.nonces: dict[bytes, int] = {}
        self.seal_at_look = True
        """Each look at the finalized head finds a new block."""
        self.lag = 0
        """Blocks that the finalized head lies behind the newest one."""
        self.include = True
        """False: blocks stay empty, what waits goes on waiting."""
        self.drop_submissions = False
        """True: extrinsics are answered as taken and lost."""
        self.tempo = TEMPO
        self.burned: list[tuple[bytes, bytes]] = []
        self._used_space: dict[bytes, tuple[int, int]] = {}
        self._emitted: list[dict[str, Any]] = []
        """Events of the call that is being applied."""
        self._calls: dict[str, Callable[[bytes, dict[str, Any]], None]] = {
            "set_commitment": self._set_commitment,
            "serve_axon": self._serve_axon,
            "set_weights": self._set_weights,
            "commit_crv3_weights": self._commit_weights,
            "burned_register": self._burned_register,
            "set_identity": self._set_identity,
        }

    # what is asked

    def hash(self, number: int) -> str:
        return self.hashes.get(number) or (GENESIS if number == 0 else super().hash(number))

    def answer(self, call: RpcCall) -> Json:
        if call.method in self.refuse or call.method in self.replace:
            return super().answer(call)
        match call.method, *call.params:
            case ["chain_getFinalizedHead" | "chain_getHead"]:
                if self.seal_at_look:
                    self.seal()
                return self.hash(self.head - self.lag)
            case ["chain_getBlockHash", *given] if not given or given[0] in (None, 0):
                return self.hash(0) if given == [0] else self.hash(self.head)
            case ["system_accountNextIndex", str(address)]:
                account = ss58.decode(address)
                waiting = [one.nonce for one in self.pool if one.public_key == account]
                return max([self.nonces.get(account, 0) - 1, *waiting]) + 1
            case ["author_submitExtrinsic", str(octets)]:
                self.asked.append(call.method)
                return self._submit(bytes.fromhex(octets[2:]))
            case ["chain_getBlock", *at]:
                number = self.number(at[0]) if at and at[0] else self.head
                if number is None:
                    return None
                extrinsics = ["0x" + one.hex() for one in (self._timestamp(number), *self.blocks.get(number, []))]
                header = {"number": hex(number), "parentHash": self.hash(number - 1)}
                return {"block": {"extrinsics": extrinsics, "header": header}, "justifications": None}
            case ["state_getStorage" | "state_getStorageAt", str(key), *at]:
                return self._read(key, at)
            case ["state_getKeysPaged", str(prefix), int(count), *rest]:
                start = rest[0] if rest and isinstance(rest[0], str) else ""
                state = self.state_at(self._number(rest[1:]))
                return [key for key in sorted(state) if key.startswith(prefix) and key > start][:count]
            case ["state_queryStorageAt", list(keys), *at]:
                state = self.state_at(self._number(at))
                changes = [[key, state.get(str(key))] for key in keys]
                return [{"block": self.hash(self._number(at)), "changes": changes}]
            case ["chain_getHeader"]:
                return super().answer(RpcCall("chain_getHeader", (self.hash(self.head),)))
            case ["state_getRuntimeVersion" | "chain_getRuntimeVersion", *_]:
                return {**recording().runtime_version, "specVersion": self.spec_version}
            case ["state_getMetadata", *_]:
                return metadata_v14()
            case ["system_properties"]:
                return recording().properties
            case ["rpc_methods"]:
                return {"methods": ["state_getStorage", "chain_getBlock", "author_submitExtrinsic"]}
            case _:
                pass
        return super().answer(call)

    def reorganise(self, at: int) -> None:
        """Blocks from `at` on are gone; what they held waits again."""
        super().reorganise(at)
        for number in range(at, self.head + 1):
            self.states.pop(number, None)
            for octets in self.blocks.pop(number, []):
                waiting = self._parsed(octets, number - 1)
                self.nonces[waiting.public_key] = min(waiting.nonce, self.nonces[waiting.public_key])
                self.pool.append(waiting)
        self.head = at - 1

    def upgrade(self, spec_version: int) -> None:
        """From now on the runtime is another one: what was signed for the old one is worth nothing."""
        self.spec_version = spec_version
        self.types = RuntimeTypes(bytes.fromhex(recording().metadata[2:]), spec_version, 1)
        self._runtime = self.types.core
        self.pool.clear()

    def state_at(self, number: int) -> dict[str, str]:
        """Storage after this block."""
        changed: dict[str, str | None] = dict(recording().storage)
        for block in sorted(self.states):
            if block <= number:
                changed.update(self.states[block])
        return {key: value for key, value in changed.items() if value is not None}

    def metagraph(self, argument: str, number: int | None, at: Json) -> Json:
        """The recorded one, with the axons, updates and the serving limit that blocks have changed."""
        told = super().metagraph(argument, number, at)
        if not isinstance(told, str) or told == "0x00" or number is None:
            return told
        limit = self.types.storage_value(
            "SubtensorModule", "ServingRateLimit", self._octets(number, "ServingRateLimit")
        )
        prefix = self._key("SubtensorModule", "Axons", NETUID)
        held = {key for state in self.states.values() for key in state if key.startswith(prefix)}
        updates = self._changed(number, "LastUpdate")
        if argument != "0xc201" or (not limit and not held and updates is None):
            return told
        kind = self._runtime.runtime_api_map()["SubnetInfoRuntimeApi"]["get_metagraph"]["output"]
        fields = self._runtime.decode(kind, bytes.fromhex(told[2:]))
        places = {bytes(bittensor_core.decode_ss58(text)): place for place, text in enumerate(fields["hotkeys"])}
        for key in held:
            octets = self._held(key, number)
            place = places.get(bytes.fromhex(key[-64:]))
            if octets is not None and place is not None:
                value = self.types.storage_value("SubtensorModule", "Axons", bytes.fromhex(octets[2:]))
                fields["axons"][place] = value
        fields["serving_rate_limit"] = limit
        if updates is not None:
            fields["last_update"] = updates
        return "0x" + self._runtime.encode(kind, fields).hex()

    def _changed(self, number: int, item: str) -> Any:
        """What blocks have written to an item of the subnet; None: as recorded."""
        key = self._key("SubtensorModule", item, NETUID)
        written = [state[key] for at, state in sorted(self.states.items()) if at <= number and key in state]
        raw = written[-1] if written else None
        return None if raw is None else self.types.storage_value("SubtensorModule", item, bytes.fromhex(raw[2:]))

    def _octets(self, number: int, item: str) -> bytes | None:
        raw = self._held(self._key("SubtensorModule", item, NETUID), number)
        return None if raw is None else bytes.fromhex(raw[2:])

    def get(self, pallet: str, item: str, *parameters: object) -> Any:
        """The value of an item now."""
        key = self._key(pallet, item, *parameters)
        raw = self._held(key)
        return self.types.storage_value(pallet, item, None if raw is None else bytes.fromhex(raw[2:]))

    def put(self, value: object, pallet: str, item: str, *parameters: object) -> None:
        """Changes an item in the newest block."""
        octets = self.types.encode_storage(pallet, item, value)
        self.states.setdefault(self.head, {})[self._key(pallet, item, *parameters)] = "0x" + octets.hex()

    def _key(self, pallet: str, item: str, *parameters: object) -> str:
        return "0x" + self.types.storage_key(pallet, item, *parameters).hex()

    def _held(self, key: str, number: int | None = None) -> str | None:
        until = self.head if number is None else number
        for block in sorted(self.states, reverse=True):
            if block <= until and key in self.states[block]:
                return self.states[block][key]
        return recording().storage.get(key)

    def _read(self, key: str, at: list[Json]) -> Json:
        if at and at[0] is not None and self.number(at[0]) is None:
            return CallRefused(4003, f"Client error: UnknownBlock: State already discarded for {at[0]}")
        number = self._number(at)
        if key == self._key("System", "Events") and number not in self.states:
            return "0x00"
        return self._held(key, number)

    def _number(self, at: list[Json]) -> int:
        return (self.number(at[0]) if at and at[0] is not None else self.head) or self.head

    # the pool

    def _submit(self, octets: bytes) -> Json:
        try:
            waiting = self._checked(octets, self.head)
        except ValueError as error:
            return CallRefused(1010, f'{{"invalid":{{"{error}":null}}}}')
        if any(one.public_key == waiting.public_key and one.nonce == waiting.nonce for one in self.pool):
            return CallRefused(1014, "Priority is too low: (0 vs 0)")
        if not self.drop_submissions:
            self.pool.append(waiting)
        digest = hashlib.blake2b(octets, digest_size=32).hexdigest()
        return "0x" + digest

    def _parsed(self, octets: bytes, head: int) -> Waiting:
        decoded = self._runtime.decode_extrinsic(octets)
        period, phase = decoded["era"]
        birth = head - (head - phase) % period
        public_key = ss58.decode(decoded["address"])
        return Waiting(octets, public_key, decoded["nonce"], self._call_octets(decoded["call"]), birth + period)

    def _checked(self, octets: bytes, head: int) -> Waiting:
        decoded = self._runtime.decode_extrinsic(octets)
        waiting = self._parsed(octets, head)
        birth = waiting.last_block - ERA_BLOCKS
        payload = self._runtime.signature_payload(
            waiting.call,
            era={"period": ERA_BLOCKS, "current": birth},
            nonce=waiting.nonce,
            tip=decoded["tip"],
            tip_asset_id=None,
            genesis_hash=bytes.fromhex(self.hash(0)[2:]),
            era_block_hash=bytes.fromhex(self.hash(birth)[2:]),
        )
        if decoded["era"][0] != ERA_BLOCKS or birth < self.first:
            raise ValueError("ancientBirthBlock")
        if not sr25519.verify(bytes.fromhex(decoded["signature"]["Sr25519"][2:]), payload, waiting.public_key):
            raise ValueError("badProof")
        if waiting.nonce < self.nonces.get(waiting.public_key, 0):
            raise ValueError("stale")
        if waiting.nonce > self.nonces.get(waiting.public_key, 0) + 16:
            raise ValueError("future")
        return waiting

    def _call_octets(self, call: dict[str, Any]) -> bytes:
        arguments = {one["name"]: one["value"] for one in call["call_args"]}
        octets: bytes = self._runtime.compose_call(call["call_module"], call["call_function"], arguments)
        return octets

    # blocks

    def seal(self) -> None:
        """Builds and finalises one block with what waits in the pool and may go in."""
        self.head += 1
        self.states.setdefault(self.head, {})
        records = [self._record(0, {"System": {"ExtrinsicSuccess": {"dispatch_info": MANDATORY}}})]
        included: list[Waiting] = []
        for waiting in sorted(self.pool, key=lambda one: one.nonce):
            if waiting.last_block < self.head or not self.include:
                continue
            if waiting.nonce != self.nonces.get(waiting.public_key, 0):
                continue
            self.nonces[waiting.public_key] = waiting.nonce + 1
            included.append(waiting)
            records += [self._record(len(included), event) for event in self._applied(waiting)]
        self.pool = [one for one in self.pool if one not in included and one.last_block > self.head]
        self.blocks[self.head] = [one.octets for one in included]
        events: bytes = self._runtime.encode(self._events_type, records)
        self.states[self.head][self._key("System", "Events")] = "0x" + events.hex()

    def _timestamp(self, number: int) -> bytes:
        """The unsigned extrinsic that begins a block."""
        now = {"now": GENESIS_MS + number * BLOCK_MS}
        octets = b"\x04" + bytes(self._runtime.compose_call("Timestamp", "set", now))
        return bytes([len(octets) << 2]) + octets

    def _record(self, place: int, event: dict[str, Any]) -> dict[str, Any]:
        return {"phase": {"ApplyExtrinsic": place}, "event": event, "topics": []}

    def _failed(self, refused: Refused) -> dict[str, Any]:
        return {"Module": {"index": refused.pallet, "error": f"0x{refused.error:02x}000000"}}

    def _applied(self, waiting: Waiting) -> list[dict[str, Any]]:
        """Its events, in the order of the runtime: the call's own, the fee, how it ended."""
        decoded = self._runtime.decode_call(waiting.call)
        arguments = {one["name"]: one["value"] for one in decoded["call_args"]}
        info = COMMITMENT if decoded["call_function"] == "set_commitment" else OTHER
        self._emitted = []
        try:
            self._calls[decoded["call_function"]](waiting.public_key, arguments)
            end: dict[str, Any] = {"ExtrinsicSuccess": {"dispatch_info": info}}
        except Refused as refused:
            self._emitted = []
            end = {"ExtrinsicFailed": {"dispatch_error": self._failed(refused), "dispatch_info": info}}
        paid = {"who": ss58.encode(waiting.public_key), "actual_fee": 0, "tip": 0}
        return [*self._emitted, {"TransactionPayment": {"TransactionFeePaid": paid}}, {"System": end}]

    def _emit(self, pallet: str, name: str, value: object) -> None:
        self._emitted.append({pallet: {name: value}})

    # calls

    def uid(self, hotkey: bytes, netuid: int = NETUID) -> int | None:
        found: int | None = self.get("SubtensorModule", "Uids", netuid, hotkey)
        return found

    def _set_commitment(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid, fields = arguments["netuid"], arguments["info"]["fields"]
        if self.uid(who, netuid) is None:
            raise Refused(COMMITMENTS, 1)
        size = max(100, *(len(str(next(iter(one.values())))) // 2 - 1 for one in fields))
        epoch = (self.head + netuid + 1) // (self.tempo + 1)
        held_epoch, used = self._used_space.get(who, (epoch, 0))
        used = used if held_epoch == epoch else 0
        if used + size > MAX_SPACE:
            raise Refused(COMMITMENTS, 2)
        self._used_space[who] = epoch, used + size
        value = {"deposit": 0, "block": self.head, "info": arguments["info"]}
        self.put(value, "Commitments", "CommitmentOf", netuid, who)
        self._emit("Commitments", "Commitment", {"netuid": netuid, "who": ss58.encode(who)})

    def _serve_axon(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        if self.uid(who, netuid) is None:
            raise Refused(SUBTENSOR, 7)
        if arguments["port"] == 0:
            raise Refused(SUBTENSOR, 4)
        held = self.get("SubtensorModule", "Axons", netuid, who)
        limit = self.get("SubtensorModule", "ServingRateLimit", netuid)
        if held is not None and held["block"] and self.head - held["block"] < limit:
            raise Refused(SUBTENSOR, 31)
        value = {**{name: arguments[name] for name in arguments if name != "netuid"}, "block": self.head}
        self.put(value, "SubtensorModule", "Axons", netuid, who)
        self._emit("SubtensorModule", "AxonServed", [netuid, ss58.encode(who)])

    def _validator(self, who: bytes, netuid: int) -> int:
        uid = self.uid(who, netuid)
        if uid is None:
            raise Refused(SUBTENSOR, 5)
        if not self.get("SubtensorModule", "ValidatorPermit", netuid)[uid]:
            raise Refused(SUBTENSOR, 16)
        return uid

    def _set_weights(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        if self.get("SubtensorModule", "CommitRevealWeightsEnabled", netuid):
            raise Refused(SUBTENSOR, 54)
        uid = self.uid(who, netuid)
        if uid is None or list(arguments["dests"]) != [uid]:
            uid = self._validator(who, netuid)
        if arguments["version_key"] < self.get("SubtensorModule", "WeightsVersionKey", netuid):
            raise Refused(SUBTENSOR, 30)
        if len(set(arguments["dests"])) != len(arguments["dests"]):
            raise Refused(SUBTENSOR, 18)
        updates = self.get("SubtensorModule", "LastUpdate", netuid)
        if self.head - updates[uid] < self.get("SubtensorModule", "WeightsSetRateLimit", netuid):
            raise Refused(SUBTENSOR, 29)
        weights = list(zip(arguments["dests"], arguments["weights"], strict=True))
        self.put(weights, "SubtensorModule", "Weights", netuid, uid)
        updates[uid] = self.head
        self.put(updates, "SubtensorModule", "LastUpdate", netuid)
        self._emit("SubtensorModule", "WeightsSet", [netuid, uid])

    def _commit_weights(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid = arguments["netuid"]
        if not self.get("SubtensorModule", "CommitRevealWeightsEnabled", netuid):
            raise Refused(SUBTENSOR, 55)
        self._validator(who, netuid)
        epoch = (self.head + netuid + 1) // (self.get("SubtensorModule", "Tempo", netuid) + 1)
        held = self.get("SubtensorModule", "CRV3WeightCommits", netuid, epoch) or []
        commit = (ss58.encode(who), arguments["commit"], arguments["reveal_round"])
        self.put([*held, commit], "SubtensorModule", "CRV3WeightCommits", netuid, epoch)
        digest = hashlib.blake2b(bytes.fromhex(arguments["commit"][2:]), digest_size=32).hexdigest()
        self._emit("SubtensorModule", "CRV3WeightsCommitted", [ss58.encode(who), netuid, "0x" + digest])

    def _burned_register(self, who: bytes, arguments: dict[str, Any]) -> None:
        netuid, hotkey = arguments["netuid"], bytes(bittensor_core.decode_ss58(arguments["hotkey"]))
        if self.uid(hotkey, netuid) is not None:
            raise Refused(SUBTENSOR, 22)
        account = self.get("System", "Account", who)
        burn = self.get("SubtensorModule", "Burn", netuid)
        if account["data"]["free"] < burn:
            raise Refused(SUBTENSOR, 13)
        account["data"]["free"] -= burn
        self.put(account, "System", "Account", who)
        self.put(255, "SubtensorModule", "Uids", netuid, hotkey)
        self.burned.append((who, hotkey))
        self._emit("SubtensorModule", "NeuronRegistered", [netuid, 255, ss58.encode(hotkey)])

    def _set_identity(self, who: bytes, arguments: dict[str, Any]) -> None:
        if not self.get("SubtensorModule", "OwnedHotkeys", who):
            raise Refused(SUBTENSOR, 7)
        self.put(arguments, "SubtensorModule", "IdentitiesV2", who)
        self._emit("SubtensorModule", "ChainIdentitySet", ss58.encode(who))


def funded(chain: LivingChain, account: bytes, rao: int) -> None:
    """Gives an account a balance."""
    held = chain.get("System", "Account", account)
    held["data"]["free"] = rao
    chain.put(held, "System", "Account", account)
