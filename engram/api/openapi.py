"""OpenAPI 3.1 out of a table of routes and the very types that are decoded and encoded."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from engram.api.route import NoBody, Response, Route

Table: TypeAlias = Sequence[Route[Any, Any]]
Schema: TypeAlias = dict[str, object]

JSON = "application/json"


def document(table: Table, info: Mapping[str, str], schemes: Mapping[str, Schema] | None = None) -> bytes:
    """Return the whole document as JSON. `schemes` are the security schemes that rows name as callers."""
    types = sorted(_types(table), key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}", schema_hook=_any
    )
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, Schema] = {}
    for route in table:
        paths.setdefault(route.plain_path, {})[route.method.lower()] = _operation(route, schema_of)
    described: Schema = {"schemas": components}
    if schemes:
        described["securitySchemes"] = schemes
    return msgspec.json.encode({"openapi": "3.1.0", "info": info, "paths": paths, "components": described})


def _types(table: Table) -> set[type]:
    answered = {each.answer for route in table for each in (route.success, *route.others)}
    return {kind for kind in answered | {route.request for route in table} if kind not in (None, str, NoBody)}


def _any(kind: type) -> Schema:
    """`object` stands for any JSON value."""
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
    if route.takes_body:
        described["requestBody"] = {
            "required": True,
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
