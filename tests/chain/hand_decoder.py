"""A metagraph decoded by hand, to be held against the codec: field names and shapes as metadata orders them."""

from typing import Any

import bittensor_core


class Reader:
    def __init__(self, octets: bytes) -> None:
        self.octets, self.at = octets, 0

    def take(self, count: int) -> bytes:
        self.at += count
        assert self.at <= len(self.octets)
        return self.octets[self.at - count : self.at]

    def fixed(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def compact(self) -> int:
        mode = self.octets[self.at] & 3
        if mode == 3:
            return self.fixed_big()
        return self.fixed((1, 2, 4)[mode]) >> 2

    def fixed_big(self) -> int:
        return self.fixed((self.fixed(1) >> 2) + 4)


# Shapes: c compact, C Vec<compact>, a account, A Vec<account>, b bool, B Vec<bool>, t Vec<u8>, f 16-byte fixed point,
# x Vec<axon>, P Vec<(account, compact)>, i Option<identity of 8 texts>, I Vec<Option<identity of 7 texts>>
SHAPES = """
netuid:c name:T symbol:T identity:i network_registered_at:c owner_hotkey:a owner_coldkey:a block:c tempo:c
last_step:c blocks_since_last_step:c subnet_emission:c alpha_in:c alpha_out:c tao_in:c alpha_out_emission:c
alpha_in_emission:c tao_in_emission:c pending_alpha_emission:c pending_root_emission:c subnet_volume:c
moving_price:f rho:c kappa:c min_allowed_weights:c max_weights_limit:c weights_version:c weights_rate_limit:c
activity_cutoff:c max_validators:c num_uids:c max_uids:c burn:c difficulty:c registration_allowed:b
pow_registration_allowed:b immunity_period:c min_difficulty:c max_difficulty:c min_burn:c max_burn:c
adjustment_alpha:c adjustment_interval:c target_regs_per_interval:c max_regs_per_block:c serving_rate_limit:c
commit_reveal_weights_enabled:b commit_reveal_period:c liquid_alpha_enabled:b alpha_high:c alpha_low:c
bonds_moving_avg:c hotkeys:A coldkeys:A identities:I axons:x active:B validator_permit:B pruning_score:C
last_update:C emission:C dividends:C incentives:C consensus:C trust:C rank:C block_at_registration:C
alpha_stake:C tao_stake:C total_stake:C tao_dividends_per_hotkey:P alpha_dividends_per_hotkey:P
"""


def decode(octets: bytes) -> dict[str, Any]:
    reader = Reader(octets)
    assert reader.take(1) == b"\x01"
    fields = dict(shape.split(":") for shape in SHAPES.split())
    found = {name: READ[kind](reader) for name, kind in fields.items()}
    assert reader.at == len(octets)
    return found


def account(reader: Reader) -> str:
    text: str = bittensor_core.ss58_encode(reader.take(32), ss58_format=42)
    return text


def texts(reader: Reader, count: int) -> list[bytes] | None:
    if reader.fixed(1) == 0:
        return None
    return [reader.take(reader.compact()) for _ in range(count)]


def axon(reader: Reader) -> dict[str, int]:
    widths = {"block": 8, "version": 4, "ip": 16, "port": 2, "ip_type": 1, "protocol": 1}
    read = {name: reader.fixed(width) for name, width in widths.items()}
    return {**read, "placeholder1": reader.fixed(1), "placeholder2": reader.fixed(1)}


def many(reader: Reader, read: Any) -> list[Any]:
    return [read(reader) for _ in range(reader.compact())]


READ: dict[str, Any] = {
    "c": Reader.compact,
    "C": lambda reader: many(reader, Reader.compact),
    "T": lambda reader: many(reader, Reader.compact),
    "a": account,
    "A": lambda reader: many(reader, account),
    "b": lambda reader: bool(reader.fixed(1)),
    "B": lambda reader: many(reader, lambda one: bool(one.fixed(1))),
    "f": lambda reader: {"bits": reader.fixed(16)},
    "i": lambda reader: texts(reader, 8),
    "I": lambda reader: many(reader, lambda one: texts(one, 7)),
    "x": lambda reader: many(reader, axon),
    "P": lambda reader: many(reader, lambda one: (account(one), one.compact())),
}
