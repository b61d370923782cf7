"""What an OpenAPI document means, however it spells it."""

from typing import Any


def meant(document: dict[str, Any]) -> Any:
    """The paths of a document: what a reference names stands in its place, and each schema has one spelling."""
    components = document["components"]["schemas"]

    def meaning(node: Any) -> Any:
        if isinstance(node, list):
            return [meaning(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return meaning(components[node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"})
        kept = {name: meaning(each) for name, each in node.items() if name not in _SAID or not isinstance(each, str)}
        if "properties" in node:
            kept["properties"] = {name: meaning(each) for name, each in node["properties"].items()}
        return _spelled(kept)

    return meaning(document["paths"])


_SAID = frozenset({"title", "description"})


def _spelled(schema: dict[str, Any]) -> dict[str, Any]:
    several = schema.pop("anyOf", None)
    if several is not None:
        values = [each for each in several if each != {"type": "null"}]
        kinds = [each.pop("type") for each in values] + ["null"] * (len(several) - len(values))
        schema = {**{name: value for each in values for name, value in each.items()}, **schema, "type": kinds}
    if isinstance(schema.get("type"), list):
        schema["type"] = sorted(schema["type"])
    if "enum" in schema:
        schema = {**schema, "enum": sorted(schema["enum"])}
        schema.pop("type", None)
    if schema.get("additionalProperties") == {}:
        del schema["additionalProperties"]
    if isinstance(schema.get("required"), list):
        schema["required"] = sorted(schema["required"])
    optional = (schema.get("required") == []) or schema.get("required") is False
    return {
        name: value for name, value in schema.items() if not (name == "required" and optional) and name != "default"
    }
