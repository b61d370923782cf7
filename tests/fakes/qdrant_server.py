"""A Qdrant server for tests: it holds every request and answer to Qdrant's published OpenAPI document, and answers
from the embedded engine.

The document is read from ../shared/vectors/qdrant and from nowhere else. What breaks it is noted in `broken` and
answered with 500. It does not show replication, consistency levels, timing of the server's optimizers, authorisation,
gRPC or other versions.
"""

import contextlib
import gzip
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import qdrant_edge as edge

from tests.shared import SHARED

DOCUMENT = SHARED / "vectors" / "qdrant" / "openapi-1.19.json.gz"


@cache
def document() -> dict[str, Any]:
    """Returns the document with `nullable` in JSON Schema's form."""
    with gzip.open(DOCUMENT) as file:
        parsed: dict[str, Any] = json.load(file)
    translated: dict[str, Any] = _with_null(parsed)
    return translated


def _with_null(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    rest = {key: _with_null(value) for key, value in node.items() if key != "nullable"}
    if node.get("nullable") is True:
        return {"anyOf": [rest, {"type": "null"}]} if rest else {"type": "null"}
    return rest


class Operation:
    """One operation of the document: its path's pattern and its validators."""

    def __init__(self, method: str, template: str, described: dict[str, Any]) -> None:
        self.method = method
        self.template = template
        self.pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + "$")
        body = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        self.request = _validator(body) if body else None
        answer = described["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
        self.response = _validator(answer) if answer else None
        self.parameters = {each["name"] for each in described.get("parameters", []) if each["in"] == "query"}


def _validator(schema: dict[str, Any]) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator({**schema, "components": document()["components"]})


@cache
def operations() -> list[Operation]:
    return [
        Operation(method, template, described)
        for template, methods in document()["paths"].items()
        for method, described in methods.items()
        if template.startswith("/collections/{collection_name}") and method in ("get", "put", "post", "delete")
    ]


class QdrantDouble:
    """Serves on a free port of loopback from a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: dict[str, edge.EdgeShard] = {}
        self.broken: list[str] = []
        """What broke the document."""
        self.calls: list[str] = []
        """Method and template of each request."""
        self._one_at_a_time = threading.Lock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                with double._one_at_a_time:
                    status, answer = double.answer(self.command.lower(), self.path, body)
                encoded = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_GET = do_PUT = do_POST = do_DELETE = do  # noqa: N815  # the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator["QdrantDouble"]:
        operations()  # reading the document takes a second: not during the first request
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
            for shard in self.shards.values():
                shard.close()

    def answer(self, method: str, target: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Returns status and answer of one request."""
        split = urlsplit(target)
        for operation in operations():
            matched = operation.pattern.match(split.path)
            if operation.method == method and matched:
                return self._checked(operation, matched["collection_name"], split.query, body)
        return self._break(f"{method} {target} is not in the document")

    def _checked(self, operation: Operation, collection: str, query: str, body: Any) -> tuple[int, dict[str, Any]]:
        name = f"{operation.method} {operation.template}"
        self.calls.append(name)
        unknown = set(parse_qs(query)) - operation.parameters
        if unknown:
            return self._break(f"{name}: unknown parameters {unknown}")
        if operation.request is not None:
            for wrong in operation.request.iter_errors(body):
                return self._break(f"{name}: request: {wrong.message[:300]}")
        perform = _ANSWERS.get(name)
        if perform is None:
            return self._break(f"{name}: the double cannot do this")
        try:
            result = perform(self, collection, body)
        except KeyError:
            return 404, {"status": {"error": f"Not found: Collection `{collection}` doesn't exist!"}, "time": 0.0}
        except Exception as error:  # noqa: BLE001  # the engine raises nothing more specific
            return 400, {"status": {"error": str(error)}, "time": 0.0}
        answer = {"result": result, "status": "ok", "time": 0.0}
        if operation.response is not None:
            for wrong in operation.response.iter_errors(answer):
                return self._break(f"{name}: response: {wrong.message[:300]}")
        return 200, answer

    def _break(self, what: str) -> tuple[int, dict[str, Any]]:
        self.broken.append(what)
        return 500, {"status": {"error": what}, "time": 0.0}

    def exists(self, collection: str, body: Any) -> Any:
        return {"exists": collection in self.shards}

    def create(self, collection: str, body: Any) -> Any:
        if collection in self.shards:
            raise ValueError(f"Collection `{collection}` already exists!")
        path = self.folder / collection
        path.mkdir(parents=True)
        vectors = edge.EdgeVectorParams(size=body["vectors"]["size"], distance=edge.Distance.Cosine)
        assert body["vectors"]["distance"] == "Cosine"
        self.shards[collection] = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
        return True

    def drop(self, collection: str, body: Any) -> Any:
        self.shards.pop(collection).close()
        shutil.rmtree(self.folder / collection)
        return True

    def index(self, collection: str, body: Any) -> Any:
        tenant = bool(body["field_schema"].get("is_tenant"))
        parameters = edge.KeywordIndexParams(is_tenant=tenant)
        self.shards[collection].update(edge.UpdateOperation.create_field_index(body["field_name"], parameters))
        return _DONE

    def upsert(self, collection: str, body: Any) -> Any:
        points = [edge.Point(each["id"], each["vector"], each.get("payload") or {}) for each in body["points"]]
        self.shards[collection].update(edge.UpdateOperation.upsert_points(points))
        return _DONE

    def delete(self, collection: str, body: Any) -> Any:
        self.shards[collection].update(edge.UpdateOperation.delete_points(body["points"]))
        return _DONE

    def count(self, collection: str, body: Any) -> Any:
        return {"count": self.shards[collection].count(edge.CountRequest(exact=True))}

    def retrieve(self, collection: str, body: Any) -> Any:
        found = self.shards[collection].retrieve(body["ids"], True, False)
        return [{"id": int(each.id), "payload": each.payload} for each in found]

    def query(self, collection: str, body: Any) -> Any:
        must = (body.get("filter") or {}).get("must") or []
        conditions = [edge.FieldCondition(each["key"], match=_match(each["match"])) for each in must]
        nearest = body["query"]["nearest"] if isinstance(body["query"], dict) else body["query"]
        request = edge.QueryRequest(
            limit=body["limit"],
            query=edge.Query.Nearest(nearest),
            filter=edge.Filter(must=list(conditions)) if conditions else None,
            with_payload=False,
            with_vector=False,
        )
        hits = self.shards[collection].query(request)
        return {"points": [{"id": int(hit.id), "version": 0, "score": hit.score} for hit in hits]}


def _match(match: Any) -> edge.MatchValue | edge.MatchAny:
    return edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])


_DONE = {"operation_id": 0, "status": "completed"}
_ONE = "/collections/{collection_name}"
_ANSWERS = {
    f"get {_ONE}/exists": QdrantDouble.exists,
    f"put {_ONE}": QdrantDouble.create,
    f"delete {_ONE}": QdrantDouble.drop,
    f"put {_ONE}/index": QdrantDouble.index,
    f"put {_ONE}/points": QdrantDouble.upsert,
    f"post {_ONE}/points/delete": QdrantDouble.delete,
    f"post {_ONE}/points/count": QdrantDouble.count,
    f"post {_ONE}/points": QdrantDouble.retrieve,
    f"post {_ONE}/points/query": QdrantDouble.query,
}
