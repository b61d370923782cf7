from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.chain.errors import AnswerMalformed, RuntimeApiMissing, SubnetUnknown
from engram.chain.model import Axon, FinalizedBlock, Metagraph
from engram.chain.read.codec import Codec, unwrap_metadata
from engram.chain.read.recorded.node import compact
from engram.hotkeys import ss58
from tests.chain import hand_decoder
from tests.chain.samples import codec, encoded, metadata, read, recorded_head, recorded_metagraph, scale
from tests.fakes import metadata_v15
from tests.sampling import SEED

Fields = dict[str, object]
PER_UID = (
    "hotkeys",
    "coldkeys",
    "axons",
    "active",
    "validator_permit",
    "last_update",
    "emission",
    "dividends",
    "incentives",
    "consensus",
    "block_at_registration",
    "alpha_stake",
    "tao_stake",
    "total_stake",
)


def typed(fields: Fields | None, netuid: int = 450, head: FinalizedBlock | None = None) -> Metagraph:
    return codec().metagraph(fields, netuid, head or recorded_head(), read_at_s=5.0, endpoint="recording", witness=None)


def fields() -> Fields:
    found = codec().decode_fields(scale())
    assert found is not None
    return found


def test_the_recorded_metagraph_is_read_as_the_node_held_it() -> None:
    metagraph = typed(fields())
    assert (metagraph.netuid, metagraph.block, metagraph.block_hash) == (450, 1100, recorded_head().hash)
    assert len(metagraph.neurons) == 256
    assert [neuron.uid for neuron in metagraph.neurons] == list(range(256))
    one = metagraph.neurons[1]
    assert one.axon == Axon("13.89.38.129", 9999, 1, 4, 1004)
    assert one.hotkey == ss58.decode("5D9rvunSARJN1iWZBemznXSzde1n8wdmskpq2eXJUPvwLJqU")
    assert (one.stake_rao, one.validator_permit) == (99162030640, True)
    assert metagraph.neurons[0].axon is None
    assert metagraph.neurons[2].incentive_u16 == 40695
    assert metagraph.neuron(one.hotkey) == one
    assert metagraph.neuron(bytes(32)) is None
    assert metagraph.parameters.tempo == 10
    assert metagraph.age_s(7.5) == 2.5


def test_every_field_agrees_with_a_decoder_written_by_hand() -> None:
    assert fields() == hand_decoder.decode(scale())


def test_every_field_agrees_with_what_was_recorded_beside_the_bytes() -> None:
    assert msgspec.json.decode(msgspec.json.encode(fields())) == recorded_metagraph()["decoded"]


def test_the_netuid_is_encoded_as_the_metadata_says() -> None:
    assert codec().metagraph_params(450) == "0xc201"
    for impossible in (-1, 65_536):
        with pytest.raises(SubnetUnknown):
            codec().metagraph_params(impossible)


def test_an_unknown_subnet_is_a_clear_error() -> None:
    with pytest.raises(SubnetUnknown, match="no subnet 451"):
        typed(codec().decode_fields(b"\x00"), 451)


def test_vectors_that_newer_runtimes_leave_empty_are_tolerated() -> None:
    newer = {**fields(), "trust": [], "rank": [], "pruning_score": []}
    neuron = typed(newer).neurons[3]
    assert (neuron.trust_u16, neuron.rank_u16, neuron.pruning_score_u16) == (None, None, None)
    gone = {name: value for name, value in newer.items() if name not in ("trust", "rank", "pruning_score")}
    assert typed(gone).neurons[3].trust_u16 is None


def test_bytes_of_the_newer_runtimes_shape_are_read() -> None:
    assert encoded() == scale()
    newer = read(encoded(trust=[], rank=[], pruning_score=[], tao_dividends_per_hotkey=[]))
    assert newer.neurons[3] == msgspec.structs.replace(
        read(scale()).neurons[3], trust_u16=None, rank_u16=None, pruning_score_u16=None
    )


def test_fields_are_found_by_the_names_that_the_metadata_gives_them() -> None:
    renamed = Codec(metadata().replace(b"pruning_score", b"pruning_sc0re"), 425, 1)
    fields = renamed.decode_fields(scale())
    found = renamed.metagraph(fields, 450, recorded_head(), read_at_s=0.0, endpoint="", witness=None)
    assert found.neurons[0].pruning_score_u16 is None
    assert found.neurons[0].trust_u16 is not None
    assert found.spec_version == 425


@given(
    name=st.sampled_from(PER_UID),
    length=st.integers(0, 300).filter(lambda length: length != 256),
)
def test_a_vector_of_any_other_length_is_refused(name: str, length: int) -> None:
    whole = fields()[name]
    assert isinstance(whole, list)
    with pytest.raises(AnswerMalformed, match=f"{name} is not of 256 uids"):
        read(encoded(**{name: (whole + whole)[:length]}))


@given(st.binary(max_size=300))
def test_noise_is_never_a_metagraph(noise: bytes) -> None:
    with pytest.raises((AnswerMalformed, SubnetUnknown)):
        read(noise)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"netuid": 449}, "answered subnet 449"),
        ({"block": 1101}, "of block 1101, asked for block 1100"),
        ({"num_uids": 255}, "hotkeys is not of 255 uids"),
        ({"max_uids": 255}, "at most 255"),
        ({"last_update": [1]}, "last_update is not of 256 uids"),
        ({"trust": [1]}, "trust is not of 256 uids"),
        ({"emission": "none"}, "Expected `array`"),
        ({"hotkeys": ["5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"] * 256}, "holds two uids"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(change: Fields, complaint: str) -> None:
    with pytest.raises(AnswerMalformed, match=complaint):
        typed({**fields(), **change})


def test_a_field_that_the_runtime_no_longer_has_is_refused_by_name() -> None:
    without = fields()
    del without["incentives"]
    with pytest.raises(AnswerMalformed, match="incentives"):
        typed(without)


@pytest.mark.parametrize("broken", [b"", scale()[:-1], scale() + b"\x00", b"\x02" + scale()[1:], scale()[:5000]])
def test_bytes_that_are_not_exactly_one_value_are_refused(broken: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        codec().decode_fields(broken)


def test_what_is_no_address_is_no_axon() -> None:
    def announced(**what: int) -> Axon | None:
        axon = {"block": 1, "version": 1, "ip": 16909060, "port": 80, "ip_type": 4, "protocol": 4, **what}
        axons = fields()["axons"]
        assert isinstance(axons, list)
        return typed({**fields(), "axons": [axon, *axons[1:]]}).neurons[0].axon

    assert announced() == Axon("1.2.3.4", 80, 1, 4, 1)
    assert announced(port=0) is None
    assert announced(ip=0) is None
    assert announced(ip=2**32) is None
    found = announced(ip=0x20010DB8 << 96 | 1, ip_type=6)
    assert found is not None
    assert found.ip == "2001:db8::1"


def test_a_thousand_corruptions_are_refused_or_read_but_never_crash() -> None:
    rng = Random(SEED)
    refused = 0
    for _ in range(1_000):
        octets = bytearray(scale())
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(octets)) if rng.random() < 0.7 else rng.randrange(400)
            match rng.randrange(4):
                case 0:
                    octets[at] = rng.randrange(256)
                case 1:
                    del octets[at : at + rng.randrange(1, 50)]
                case 2:
                    octets[at:at] = rng.randbytes(rng.randrange(1, 50))
                case _:
                    octets[at] = 0xFF
        try:
            found = read(bytes(octets))
        except (AnswerMalformed, SubnetUnknown):
            refused += 1
        else:
            assert len(found.neurons) == len(found.uid_by_hotkey) <= 256
    assert refused > 600


@pytest.mark.parametrize("broken", [b"", b"\x00", b"\x01", b"\x01\xff\xff\xff", metadata()[:-1], metadata() + b"\x00"])
def test_metadata_that_is_cut_off_is_refused(broken: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        Codec(broken, 293, 1)


def test_metadata_that_is_none_is_refused() -> None:
    noise = Random(1).randbytes(500)
    with pytest.raises(AnswerMalformed, match="metadata of runtime 293"):
        Codec(b"\x01" + compact(len(noise)) + noise, 293, 1)


def test_a_runtime_without_the_metagraph_api_is_a_clear_error() -> None:
    renamed = metadata().replace(b"get_metagraph", b"got_metagraph")
    assert unwrap_metadata(renamed)
    with pytest.raises(RuntimeApiMissing, match="SubnetInfoRuntimeApi_get_metagraph"):
        Codec(renamed, 293, 1)


def test_remembered_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.chain.read.codec.ADDRESSES_KEPT", 100)
    small = Codec(metadata(), 293, 1)
    found = small.metagraph(
        small.decode_fields(scale()), 450, recorded_head(), read_at_s=0.0, endpoint="", witness=None
    )
    assert found == msgspec.structs.replace(typed(fields()), read_at_s=0.0, endpoint="")
    assert len(small._addresses) <= 100


def test_metadata_by_which_accounts_are_none_is_no_reason_to_crash() -> None:
    tree = metadata_v15.read(metadata())
    octet = next(one["id"] for one in tree["types"] if one["type"]["definition"] == {"primitive": 3})
    (account,) = (one["type"] for one in tree["types"] if one["type"]["path"][-1:] == ["AccountId32"])
    account |= {"path": [], "definition": {"array": {"length": 32, "type": octet}}}
    types = Codec(metadata_v15.write(tree), 293, 1)
    fields = types.decode_fields(scale())
    with pytest.raises(AnswerMalformed, match="is no account"):
        types.metagraph(fields, 450, recorded_head(), read_at_s=0.0, endpoint="liar", witness=None)
