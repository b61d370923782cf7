import json
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.model import AkashSettings
from engram.miner import app
from engram.provisioning.akash import sdl, yaml_text
from engram.provisioning.akash.compiler import compile_sdl
from engram.provisioning.akash.cosmos import DECIMALS
from engram.provisioning.akash.errors import InvalidSdl
from engram.provisioning.akash.node_sdl import MAX_BODY_BYTES, NodeOrder, node_sdl
from engram.provisioning.akash.resources import EndpointKind
from engram.sessions import Tier, TierName
from engram.sessions.rules import tiers

IMAGE = f"ghcr.io/example/engram@sha256:{'ab' * 32}"
_TIERS = tiers(0.1)
_AKASH = AkashSettings()
_MOST = {
    TierName.LITE: str(_AKASH.max_price_lite),
    TierName.STANDARD: str(_AKASH.max_price_standard),
    TierName.PRO: str(_AKASH.max_price_pro),
}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _order(tier: Tier = _TIERS[TierName.STANDARD], **changed: object) -> NodeOrder:
    said: dict[str, object] = {
        "tier": tier,
        "image": IMAGE,
        "environment": {"ENGRAM_NODE_B": "a<b", "ENGRAM_NODE_A": "1"},
        "max_price_uact": _MOST[tier.name],
    }
    return NodeOrder(**(said | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("tier", _TIERS.values(), ids=lambda tier: tier.name)
def test_a_node_gets_what_its_tier_sells(tier: Tier) -> None:
    (group,) = compile_sdl(node_sdl(_order(tier))).groups
    (unit,) = group.resources
    assert unit.count == 1
    assert int(unit.resource.cpu.units.val) == tier.cpu_vcpu * 1000
    assert int(unit.resource.memory.quantity.val) == tier.memory_bytes
    assert int(unit.resource.storage[1].quantity.val) == tier.storage_bytes
    assert unit.price.denom == "uact"
    assert int(unit.price.amount) == float(_MOST[tier.name]) * DECIMALS


def test_every_tier_has_a_price_at_which_it_is_sold_with_a_gain() -> None:
    assert _MOST.keys() == {*TierName}
    for name, tier in _TIERS.items():
        assert float(_MOST[name]) * 588.5 < tier.usd_micros_per_hour / 4


def test_the_ingress_passes_what_a_node_takes() -> None:
    assert MAX_BODY_BYTES == app.MAX_BODY_BYTES


def test_a_node_has_one_port_that_the_ingress_serves_as_80() -> None:
    compiled = compile_sdl(node_sdl(_order()))
    (endpoint,) = compiled.groups[0].resources[0].resource.endpoints
    assert endpoint.kind is EndpointKind.SHARED_HTTP
    ((service,),) = [group["services"] for group in json.loads(compiled.manifest)]
    (port,) = service["expose"]
    assert (port["port"], port["externalPort"], port["global"]) == (8091, 80, True)
    assert port["httpOptions"]["maxBodySize"] == 10 * 1024 * 1024
    assert service["env"] == ["ENGRAM_NODE_A=1", "ENGRAM_NODE_B=a<b"]
    assert service["image"] == IMAGE
    assert service["params"] == {"storage": [{"mount": "/data", "name": "data", "readOnly": False}]}


def test_one_that_differs_in_its_token_alone_has_another_hash() -> None:
    first, second = (compile_sdl(node_sdl(_order(environment={"T": token}))) for token in ("a", "b"))
    assert first.groups == second.groups
    assert first.version != second.version


def test_without_a_class_of_storage_there_is_one_volume_that_is_as_large() -> None:
    compiled = compile_sdl(node_sdl(_order(storage_class=None, auditors=(), attributes={"region": "us-west"})))
    (volume,) = compiled.groups[0].resources[0].resource.storage
    assert int(volume.quantity.val) == 21 * 1024**3
    assert volume.attributes == ()
    assert "params" not in json.loads(compiled.manifest)[0]["services"][0]
    assert compiled.groups[0].requirements.signed_by.any_of == ()
    assert [one.value for one in compiled.groups[0].requirements.attributes] == ["us-west"]


@pytest.mark.parametrize(
    "image", ["", "ghcr.io/example/engram:1.2.3", "engram@sha256:abc", f"a b@sha256:{'ab' * 32}", f"{IMAGE}0"]
)
def test_an_image_without_its_digest_is_refused(image: str) -> None:
    with pytest.raises(InvalidSdl, match="@sha256: and 64 hex digits"):
        node_sdl(_order(image=image))


def test_a_reclamation_window_is_asked_for_in_version_2_1_alone() -> None:
    assert node_sdl(_order()).version == "2.0"
    asked = node_sdl(_order(reclamation="1h"))
    assert asked.version == "2.1"
    assert compile_sdl(asked).reclamation is not None


def test_an_order_shows_no_launch_token() -> None:
    assert "secret" not in repr(_order(environment={"TOKEN": "secret"}))


@given(st.dictionaries(st.sampled_from(string.ascii_uppercase), _TEXT, max_size=3))
def test_a_node_s_definition_is_the_same_when_it_is_read_from_its_yaml(environment: dict[str, str]) -> None:
    definition = node_sdl(_order(environment=environment))
    again = sdl.parse(yaml.safe_load(yaml_text.dump(sdl.document_of(definition))))
    assert again == definition


# --------------------------------------------------------------------------------------------------------- YAML

_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT | st.sampled_from(["yes", "No", "0x1", "1:30", "-", "a: b", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(_DOCUMENTS)
def test_yaml_is_read_back_as_what_was_written(document: object) -> None:
    assert yaml.safe_load(yaml_text.dump(document)) == document


def test_yaml_looks_as_people_write_it() -> None:
    document = {"a": {"b": [1, "x", {"c": "10Gi", "d": True}], "e": {}}, "f": "image@sha256:ab", "g": "A=1"}
    assert yaml_text.dump(document) == (
        'a:\n  b:\n    - 1\n    - x\n    - c: "10Gi"\n      d: true\n  e: {}\nf: image@sha256:ab\ng: "A=1"\n'
    )
