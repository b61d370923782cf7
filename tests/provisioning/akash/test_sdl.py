"""Compiled as akash-network's own compilers do it, and refused where they refuse."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engram.provisioning.akash import manifest, protobuf, sdl, tx
from engram.provisioning.akash.compiler import compile_sdl
from engram.provisioning.akash.cosmos import DECIMALS
from engram.provisioning.akash.errors import InvalidSdl
from engram.provisioning.akash.messages import CreateDeployment, Reclamation
from engram.provisioning.akash.resources import GroupSpec
from tests.provisioning.akash.vectors import FOLDER, vectors

_GOLDENS: dict[str, dict[str, Any]] = vectors("sdl-goldens")
_PEER = {case["name"]: case for case in vectors("peer-manifest-vectors")["vectors"]}
_SCHEMA = jsonschema.Draft7Validator(yaml.safe_load((FOLDER / "sdl-input.schema.yaml").read_text()))
_REASONS = {
    "invalid/count-zero.yaml": r"`int` >= 1 - at `\$.deployment.*count",
    "invalid/credentials-missing-host.yaml": "missing required field `host`",
    "invalid/empty-image.yaml": "length >= 1 - at .*image",
    "invalid/endpoint-not-used.yaml": "'myendpoint' is used by no service",
    "invalid/invalid-protocol.yaml": "Invalid enum value 'HTTP'",
    "invalid/missing-deployment.yaml": "missing required field `deployment`",
    "invalid/missing-pricing.yaml": "missing required field `pricing`",
    "invalid/missing-version.yaml": "missing required field `version`",
    "invalid/negative-cpu.yaml": "cpu.units: '-100m' is not processors, as 0.5 or 500m",
    "invalid/persistent-without-mount.yaml": "storage.data: a persistent volume needs a mount",
    "invalid/port-zero.yaml": r"`int` >= 1 - at .*expose\[0\].port",
    "invalid/ram-persistent-true.yaml": "class ram cannot be persistent",
    "invalid/unknown-field.yaml": "unknown field `unknown_field`",
    "invalid/v2.1-reclamation-bad-window.yaml": "'0s' is not a window of time",
    "invalid/v2.1-tee-cpu-gpu-no-gpu.yaml": "tee is cpu-gpu, and the profile 'web' has no gpu",
    "schema-only-invalid/email-too-short.yaml": "'a@b' has less than 5 characters",
    "schema-only-invalid/invalid-denom.yaml": "Invalid enum value 'invalidtoken'",
    "schema-only-invalid/invalid-version.yaml": "Invalid enum value '3.0'",
    "schema-only-invalid/reclamation-compound-window.yaml": "'1h30m' is not a window of time",
}


def _document(name: str) -> Any:
    return yaml.safe_load(_GOLDENS[name]["sdl"] if name in _GOLDENS else (FOLDER / name).read_text())


def _groups_json(groups: tuple[GroupSpec, ...]) -> Any:
    """As Go's SDL writes groups; the chain's own JSON differs (`quantity`)."""
    return [
        {
            "name": group.name,
            "requirements": {
                "attributes": [{"key": one.key, "value": one.value} for one in group.requirements.attributes] or None,
                "signed_by": {
                    "all_of": list(group.requirements.signed_by.all_of) or None,
                    "any_of": list(group.requirements.signed_by.any_of) or None,
                },
            },
            "resources": [
                {
                    "resource": manifest.resources_json(unit.resource),
                    "count": unit.count,
                    "price": {
                        "denom": unit.price.denom,
                        "amount": f"{int(unit.price.amount) // DECIMALS}.{int(unit.price.amount) % DECIMALS:018}",
                    },
                }
                for unit in group.resources
            ],
        }
        for group in groups
    ]


@pytest.mark.parametrize("name", _GOLDENS)
def test_groups_manifest_and_hash_are_those_of_the_go_implementation(name: str) -> None:
    golden = _GOLDENS[name]
    compiled = compile_sdl(sdl.parse(_document(name)))
    assert json.loads(compiled.manifest) == golden["manifest"]
    assert _groups_json(compiled.groups) == golden["groups"]
    assert compiled.version.hex() == golden["version_hash"]


@pytest.mark.parametrize(
    "name", [name for name, case in _PEER.items() if "error" not in case and "console" not in name]
)
def test_the_hashed_json_is_that_of_the_typescript_implementation(name: str) -> None:
    compiled = compile_sdl(sdl.parse(_document(name)))
    assert compiled.manifest.decode() == _PEER[name]["sorted_json"]
    assert compiled.version.hex() == _PEER[name]["version_hex"]


def test_the_hash_of_the_console_s_example_is_that_of_its_json() -> None:
    case = _PEER["console/hello-world-sdl.yml"]
    assert manifest.version_of(case["sorted_json"].encode()).hex() == case["version_hex"]


@pytest.mark.parametrize(("tier", "signed"), [("lite", "create-lite"), ("standard", "create-standard")])
def test_a_tier_is_deployed_by_the_very_message_that_the_typescript_sdk_makes(tier: str, signed: str) -> None:
    compiled = compile_sdl(sdl.parse(_document(f"tiers/{tier}.yaml")))
    case = next(case for case in vectors("peer-tx-vectors")["cases"] if case["name"] == signed)
    (message,) = tx.decode_tx(bytes.fromhex(case["tx_raw"])).messages
    assert isinstance(message, CreateDeployment)
    ours = CreateDeployment(message.id, compiled.groups, compiled.version, message.deposit)
    assert protobuf.encode(ours).hex() == case["msgs"][0]["hex"]


# --------------------------------------------------------------------------------------------- hash snapshots


def _snapshots() -> Iterator[tuple[str, str]]:
    text = vectors("hash-snapshots")["snapshot"]
    for block in text.split("exports[`")[1:]:
        title, _, rest = block.partition("`] = `")
        yield title.rpartition(" > ")[2].removesuffix(" 1"), rest.rpartition("`;")[0]


def test_the_rule_of_the_hash_gives_the_snapshots_of_upstream() -> None:
    found = dict(_snapshots())
    held = 0
    for title, text in found.items():
        if title.endswith("manifest JSON"):
            digits = found[title.replace("manifest JSON", "manifest version")]
            numbers = [int(line.strip(" ,")) for line in digits.splitlines() if line.strip(" ,").isdigit()]
            assert manifest.version_of(text.strip('"').encode()) == bytes(numbers), title
            held += 1
    assert held == 2


def test_what_is_compiled_is_the_manifest_that_upstream_s_snapshot_has() -> None:
    known = vectors("hash-snapshots")
    (ours,) = json.loads(compile_sdl(sdl.parse(known["sdl-basic"])).manifest)
    (golden,) = known["manifest-basic"]
    for part in ("memory", "gpu"):  # numbers in this snapshot, text in what is hashed
        for value in golden["services"][0]["resources"][part].values():
            value["val"] = str(value["val"])
    for volume in golden["services"][0]["resources"]["storage"]:
        volume["size"]["val"] = str(volume["size"]["val"])
    assert ours == golden


@pytest.mark.parametrize(
    ("value", "escaped"),
    [("<>&", r"\u003c\u003e\u0026"), ("é☃😀", "é☃😀"), ('"\\', r"\"\\")],
)
def test_characters_are_escaped_as_go_escapes_them(value: str, escaped: str) -> None:
    document = _document("tiers/lite.yaml")
    document["services"]["miner"]["env"] = [f"A={value}"]
    content = compile_sdl(sdl.parse(document)).manifest
    assert f'"env":["A={escaped}"]'.encode() in content
    assert json.loads(content)[0]["services"][0]["env"] == [f"A={value}"]


def test_line_separators_are_escaped_as_go_escapes_them() -> None:
    group = manifest.Group(name="a\u2028\u2029", services=())
    assert manifest.canonical((group,)) == rb'[{"name":"a\u2028\u2029","services":[]}]'


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", vectors("sdl-invalid"))
def test_an_invalid_definition_is_refused_with_its_reason(name: str) -> None:
    with pytest.raises(InvalidSdl, match=_REASONS[name]):
        compile_sdl(sdl.parse(yaml.safe_load(vectors("sdl-invalid")[name])))


def _change(path: str, value: object) -> Any:
    document = _document("tiers/lite.yaml")
    *parents, last = path.split(".")
    at: Any = document
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    if value is None:
        del at[last]
    elif isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return document


_RESOURCES = "profiles.compute.miner.resources"
_GPU = {"units": 1, "attributes": {"vendor": {"nvidia": None}}}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("deployment", {}, "it names no placement"),
        ("deployment.other", {}, "services: 'other' is missing"),
        ("services.other", {"image": "a"}, "deployment: 'other' is missing"),
        ("deployment.miner.nowhere", {"profile": "miner", "count": 1}, "placement: 'nowhere' is missing"),
        ("deployment.miner.akash.profile", "none", "compute: 'none' is missing"),
        ("deployment.miner.akash.count", 51, "count is 51; the chain takes at most 50"),
        ("profiles.placement.akash.pricing", {}, "pricing: 'miner' is missing"),
        ("profiles.placement.akash.pricing.miner.amount", 10_000_001, "10000001 is more than 10000000"),
        ("profiles.placement.akash.pricing.miner.amount", -1, "-1 is not a price"),
        ("profiles.placement.akash.pricing.miner.amount", "1e3", "'1e3' is not a price"),
        (f"{_RESOURCES}.cpu.units", 0, "comes to 0; it must be 1 to 384000"),
        (f"{_RESOURCES}.cpu.units", 385, "comes to 385000"),
        (f"{_RESOURCES}.memory.size", "3Ti", "must be 1 to 2199023255552"),
        (f"{_RESOURCES}.memory.size", "2 Gi", "'2 Gi' is not bytes"),
        (f"{_RESOURCES}.storage", {"size": "33Ti"}, "must be 1 to"),
        (f"{_RESOURCES}.storage.1.attributes.class", None, "class is missing"),
        (f"{_RESOURCES}.storage.1.attributes.persistent", None, "class beta3 must be persistent"),
        (f"{_RESOURCES}.storage.1.attributes", {"class": "ram"}, "persistent is missing"),
        (f"{_RESOURCES}.storage.1.attributes.persistent", False, "class beta3 must be persistent"),
        (f"{_RESOURCES}.storage.0.name", "data", "must be different names"),
        (f"{_RESOURCES}.gpu", {"units": 1}, "together or not at all"),
        (f"{_RESOURCES}.gpu", _GPU | {"units": 0}, "together or not at all"),
        (f"{_RESOURCES}.gpu", _GPU | {"units": -1}, "gpu.units: -1 is not a whole number"),
        ("services.miner.params.storage.data.mount", None, "a persistent volume needs a mount"),
        ("services.miner.params.storage.other", {"mount": "/x"}, "'other' is no volume"),
        ("services.miner.params.storage.default", {"mount": "/data"}, "the same mount"),
        ("services.miner.params.storage.data.mount", "data", "matching regex"),
        ("services.miner.env", ["1A=x"], "'1A' is no name of a variable"),
        ("services.miner.env", ["A=x\ny"], "control character"),
        ("services.miner.env", ["A=\u2028"], "line separator"),
        ("services.miner.expose.0.to.0.ip", "leased", "endpoints: 'leased' is missing"),
        ("services.miner.expose.0.accept", ["Example.com"], "'Example.com' must be a DNS name"),
        ("services.miner.expose.0.accept", ["a.com", "a.com"], "be named once"),
        ("services.miner.credentials", {"host": "h", "username": "u", "password": "short"}, "less than 6 characters"),
        (
            "services.miner.credentials",
            {"host": "h", "username": "u", "password": "long enough", "email": "a@b"},
            "'a@b' has less than 5 characters",
        ),
        ("services.miner.expose", [], "nothing in 'akash' is global"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(path: str, value: object, reason: str) -> None:
    with pytest.raises(InvalidSdl, match=reason):
        compile_sdl(sdl.parse(_change(path, value)))


def test_a_name_of_a_service_that_no_provider_takes_is_refused() -> None:
    document = _document("tiers/lite.yaml")
    for section in ("services", "deployment"):
        document[section]["Miner_1"] = document[section].pop("miner")
    with pytest.raises(InvalidSdl, match="'Miner_1' must be lower-case"):
        compile_sdl(sdl.parse(document))


def test_more_placements_than_the_chain_takes_are_refused() -> None:
    document = _document("tiers/lite.yaml")
    placement, place = document["profiles"]["placement"]["akash"], document["deployment"]["miner"]["akash"]
    document["profiles"]["placement"] = {f"p{at}": placement for at in range(21)}
    document["deployment"]["miner"] = {f"p{at}": place for at in range(21)}
    with pytest.raises(InvalidSdl, match="21 placements; the chain takes at most 20"):
        compile_sdl(sdl.parse(document))


@pytest.mark.parametrize("changed", [{"ip": "endpoint2"}, {"ip": "endpoint1", "global": False}])
def test_a_leased_address_is_global_and_its_port_is_taken_once(changed: dict[str, object]) -> None:
    document = _document("v2.1/ip-endpoint")
    web = document["services"]["web"]["expose"]
    web[0]["to"][0] |= changed
    web[0]["as"] = 443 if changed["ip"] == "endpoint2" else 80
    document["endpoints"].pop("endpoint1" if changed["ip"] == "endpoint2" else "none", None)
    with pytest.raises(InvalidSdl, match=r"taken twice|is not global"):
        compile_sdl(sdl.parse(document))


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _places(one, (*path, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _places(one, (*path, at))


_JUNK = st.sampled_from([None, True, False, 0, 1, -1, 0.5, 70_000, "", "x", "80", "1Gi", "true", [], {}, [1], {"x": 1}])


@given(st.sampled_from([*_GOLDENS, "tiers/lite.yaml"]), st.data())
def test_what_upstream_s_schema_refuses_is_refused(name: str, data: st.DataObject) -> None:
    document = copy.deepcopy(_document(name))
    path = data.draw(st.sampled_from(list(_places(document))))
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    if data.draw(st.booleans()):
        at[path[-1]] = data.draw(_JUNK)
    elif isinstance(at, dict) and data.draw(st.booleans()):
        del at[path[-1]]
    elif isinstance(at, dict):
        at["unknown"] = data.draw(_JUNK)
    try:
        compile_sdl(sdl.parse(document))
    except InvalidSdl:
        return
    assert _SCHEMA.is_valid(document)


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_a_definition_is_written_changes_nothing(order: list[str]) -> None:
    document = _document("tiers/lite.yaml")
    service, place = document["services"].pop("miner"), document["deployment"].pop("miner")
    for name in order:
        document["services"][name], document["deployment"][name] = service, place
    document["profiles"]["placement"]["akash"]["attributes"] = {name: name for name in order}
    ordered = copy.deepcopy(document)
    for section in ("services", "deployment"):
        ordered[section] = dict(sorted(ordered[section].items()))
    assert compile_sdl(sdl.parse(document)) == compile_sdl(sdl.parse(ordered))


def test_a_reclamation_window_is_asked_of_providers_and_changes_no_hash() -> None:
    document = _document("tiers/lite.yaml")
    without = compile_sdl(sdl.parse(document))
    document["reclamation"] = {"min_window": "1h"}
    asked = compile_sdl(sdl.parse(document))
    assert asked.version == without.version
    assert without.reclamation is None
    assert isinstance(asked.reclamation, Reclamation)
    assert asked.reclamation.min_window.seconds == 3600


def test_no_secret_of_an_environment_is_shown() -> None:
    document = _document("v2.1/credentials")
    document["services"]["private-app"]["env"] = ["TOKEN=launch-secret"]
    definition = sdl.parse(document)
    credentials = definition.services["private-app"].credentials
    for shown in (repr(definition), repr(credentials), repr(compile_sdl(definition))):
        assert "launch-secret" not in shown
        assert "mypassword" not in shown


def test_a_document_is_read_back_from_what_is_written_of_it() -> None:
    for name in _GOLDENS:
        definition = sdl.parse(_document(name))
        assert sdl.parse(sdl.document_of(definition)) == definition
        _SCHEMA.validate(sdl.document_of(definition))
