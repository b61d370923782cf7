"""The schemes by name, as settings and operators name them.

STRICT is what a public listener should take. LENIENT also takes what the originals take and honest clients send: a
request that names no receiver (it can be passed on to another miner), a signature without 0x, any printable text as
uuid, a GET whose `{}` body was dropped on its way, and hone's other spelling of a body. Windows, replay guard,
canonical addresses and exactly one of each header are the same in both; so are the schemes that are not Epistula's.
"""

import re
from types import MappingProxyType
from typing import Final

import msgspec

from engram.hotkeys import chutes, epistula, gateway_scheme
from engram.hotkeys.scheme import SIGNATURE, Scheme

ANY_UUID = re.compile(r"[!-~]{1,4096}\Z")

STRICT: Final = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            epistula.V2,
            epistula.DIPPY,
            epistula.V1,
            epistula.HONE,
            epistula.X_EPISTULA,
            epistula.APEX,
            chutes.of_miner(),
            chutes.of_validator(),
            gateway_scheme.SCHEME,
        )
    }
)


def _lenient(scheme: Scheme) -> Scheme:
    messages = {
        "dippy": epistula.stripped_body_messages,
        "epistula-v2": epistula.stripped_body_messages,
        "hone": epistula.sorted_body_messages,
    }
    return msgspec.structs.replace(
        scheme,
        required=scheme.required - {"receiver"},
        signature=SIGNATURE,
        uuid=ANY_UUID,
        messages=messages.get(scheme.name, scheme.messages),
    )


LENIENT: Final = MappingProxyType(
    STRICT
    | {
        scheme.name: _lenient(scheme)
        for scheme in (epistula.V2, epistula.DIPPY, epistula.V1, epistula.HONE, epistula.APEX)
    }
)
