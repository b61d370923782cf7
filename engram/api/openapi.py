"""Generates OpenAPI 3.1 documents from a table of routes and the types that are decoded and encoded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast, get_args, get_type_hints

import msgspec

from engram.api.route import NoBody, Response, Route

Table: TypeAlias = Sequence[Route[Any, Any]]
Schema: TypeAlias = dict[str, object]

JSON = "application/json"


def document(table: Table, info: Mapping[str, str], schemes: Mapping[str, Schema] | None = None) -> bytes:
    """Return the whole document as JSON. `schemes` are the security schemes that rows name as callers."""
    answered = _named({each.answer for route in table for each in (route.success, *route.others)})
    requested = _named({route.request for route in table})
    types = sorted(answered | requested, key=lambda kind: kind.__name__)
    schemas, components = _schemas(types)
    _, taken = _schemas(sorted(requested, key=lambda kind: kind.__name__))
    for kind in _structs(answered):
        if kind.__name__ not in taken:
            _state_what_is_sent(kind, components[kind.__name__])
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, Schema] = {}
    for route in table:
        paths.setdefault(route.plain_path, {})[route.method.lower()] = _operation(route, schema_of)
    described: Schema = {"schemas": components}
    if schemes:
        described["securitySchemes"] = schemes
    return msgspec.json.encode({"openapi": "3.1.0", "info": info, "paths": paths, "components": described})


def _named(types: set[type | None]) -> set[type]:
    return {kind for kind in types if kind not in (None, str, NoBody)}


def _schemas(types: Sequence[type]) -> tuple[tuple[Schema, ...], dict[str, Schema]]:
    return msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}", schema_hook=_any)


def _structs(types: Iterable[type]) -> set[type[msgspec.Struct]]:
    """Return all Structs that these are made of."""
    found: set[type[msgspec.Struct]] = set()
    todo: list[Any] = [*types]
    while todo:
        kind = todo.pop()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind not in found:
            found.add(kind)
            todo += get_type_hints(kind).values()
        todo += get_args(kind)
    return found


def _state_what_is_sent(kind: type[msgspec.Struct], schema: Schema) -> None:
    """Mark fields that are always sent as required: a default counts for readers, unless the Struct omits defaults."""
    if kind.__struct_config__.omit_defaults:
        return
    sent = [each.encode_name for each in msgspec.structs.fields(kind) if each.default is not msgspec.UNSET]
    schema["required"] = sent
    for name in sent:
        cast("dict[str, Schema]", schema["properties"])[name].pop("default", None)


def _any(kind: type) -> Schema:
    """Return the schema of `object`, which stands for any JSON value."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _operation(route: Route[Any, Any], schema_of: Mapping[type, Schema]) -> Schema:
    parameters: list[Schema] = [{"name": name, "in": "path", "required": True} for name in route.path_parameters]
    for each in route.parameters:
        described_as = {"description": each.description} if each.description else {}
        parameters.append({"name": each.name, "in": each.where, **described_as})
    described: Schema = {
        "operationId": route.id,
        "summary": route.summary,
        "parameters": [{**each, "schema": {"type": "string"}} for each in parameters],
        "responses": {
            str(route.success.status): _response(route.success, schema_of, route.stream.partition(";")[0] or JSON),
            **{str(other.status or "default"): _response(other, schema_of) for other in route.others},
        },
    }
    if route.tag:
        described["tags"] = [route.tag]
    if route.callers:
        described["security"] = [{scheme: []} for scheme in route.callers]
    if route.upload:
        described["requestBody"] = {
            "required": route.body_required,
            "content": _content(route.upload, {"type": "string", "format": "binary"}, None),
        }
    if route.takes_body:
        described["requestBody"] = {
            "required": route.body_required,
            "content": _content(JSON, schema_of[route.request], route.request_example),
        }
    return described


def _response(response: Response[Any], schema_of: Mapping[type, Schema], media: str = JSON) -> Schema:
    described: Schema = {"description": response.description}
    if response.headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in response.headers}
    if response.answer is not None:
        schema = {"type": "string"} if response.answer is str else schema_of[response.answer]
        described["content"] = _content(media, schema, response.example)
    return described


def _content(media: str, schema: Mapping[str, object], example: object) -> Schema:
    return {media: {"schema": schema} | ({} if example is None else {"example": example})}
