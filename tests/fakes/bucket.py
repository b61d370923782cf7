"""A bucket on a real socket with S3's rules as an archive meets them: signature, clock, payload hash, conditions.

Signatures are checked by a reading of the specification of its own, from the request as it arrived.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.fakes.responder import Answer, Asked

ACCESS, SECRET, REGION = "AKIAEXAMPLE", "a secret that signs", "eu-north-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
    r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)


class Bucket:
    """`now` is the service's clock; the switches are faults that services have."""

    def __init__(self, name: str = "memories", page: int = 2) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.now = 1_700_000_000.0
        self.page = page
        self.ignores_conditions = False
        self.fails_with = 0
        self.loses_answers = False
        self.after_put: Callable[[], None] = lambda: None

    async def answer(self, asked: Asked) -> Answer | None:
        if self.fails_with:
            return _error(self.fails_with, "SlowDown")
        if (wrong := self._unsigned(asked)) is not None:
            return _error(403, wrong)
        parts = urlsplit(asked.target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))
        bucket, _, key = path.lstrip("/").partition("/")
        if bucket != self.name:
            return _error(404, "NoSuchBucket")
        answer = self._list(query) if not key else self._object(asked, key)
        return None if self.loses_answers else answer

    def _object(self, asked: Asked, key: str) -> Answer:
        match asked.method:
            case "PUT":
                if asked.headers.get("if-none-match") == "*" and key in self.objects and not self.ignores_conditions:
                    return _error(412, "PreconditionFailed")
                self.objects[key] = asked.body
                self.after_put()
                return 200, {"etag": '"x"'}, b""
            case "GET" if key in self.objects:
                return 200, {}, self.objects[key]
            case "DELETE":
                self.objects.pop(key, None)
                return 204, {}, b""
            case _:
                return _error(404, "NoSuchKey")

    def _list(self, query: dict[str, str]) -> Answer:
        found = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")))
        start = int(query.get("continuation-token", "0"))
        page = found[start : start + self.page]
        more = f"<NextContinuationToken>{start + self.page}</NextContinuationToken>" * (start + self.page < len(found))
        keys = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in page)
        return 200, {"content-type": "application/xml"}, f"<ListBucketResult>{keys}{more}</ListBucketResult>".encode()

    def _unsigned(self, asked: Asked) -> str | None:
        found = _AUTHORIZATION.fullmatch(asked.headers.get("authorization", ""))
        if found is None or found[1] != ACCESS or found[3] != REGION:
            return "InvalidAccessKeyId"
        stamp = asked.headers["x-amz-date"]
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if abs(at - self.now) > 900 or not stamp.startswith(found[2]):
            return "RequestTimeTooSkewed"
        if hashlib.sha256(asked.body).hexdigest() != asked.headers["x-amz-content-sha256"]:
            return "XAmzContentSHA256Mismatch"
        parts = urlsplit(asked.target)
        pairs = sorted(
            (quote(k, safe=""), quote(v, safe="")) for k, v in parse_qsl(parts.query, keep_blank_values=True)
        )
        lines = [asked.method, parts.path, "&".join(f"{k}={v}" for k, v in pairs)]
        lines += [f"{name}:{asked.headers[name]}" for name in found[4].split(";")]
        lines += ["", found[4], asked.headers["x-amz-content-sha256"]]
        scope = f"{found[2]}/{found[3]}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
        key = b"AWS4" + SECRET.encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        return None if hmac.new(key, text.encode(), "sha256").hexdigest() == found[5] else "SignatureDoesNotMatch"


def _error(status: int, code: str) -> Answer:
    return status, {"content-type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()
