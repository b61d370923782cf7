"""Signs what schemathesis sends, as a validator does: the very bytes, whatever they are."""

import time
import uuid
from typing import Any

import requests
import schemathesis

from engram.hotkeys import Keypair, epistula

ALICE, BOB = Keypair.from_uri("//Alice"), Keypair.from_uri("//Bob")


class Signed(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        headers = epistula.sign_request(
            ALICE, body, uuid=str(uuid.uuid4()), receiver=BOB.public_key, now_ns=time.time_ns()
        )
        request.headers.update(headers)
        return request


class Secret(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.setdefault("X-Internal-Secret", "internal")
        return request


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    kwargs["auth"] = Secret() if case.operation.label == "POST /capacity" else Signed()
