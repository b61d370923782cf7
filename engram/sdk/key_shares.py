"""A namespace's key over several nodes: any `threshold` of them give it back, fewer know nothing of it."""

import hashlib
import hmac
from collections.abc import Sequence

from engram.sdk import shamir
from engram.sdk.errors import SdkError
from engram.sdk.node import NodeClient
from engram.sdk.shamir import Share


class SharesMissing(SdkError):
    """Too few nodes gave a share back; `reasons` has one line for each that did not."""

    def __init__(self, message: str, reasons: Sequence[str]) -> None:
        super().__init__("; ".join([message, *reasons]))
        self.reasons = tuple(reasons)


def distribute_key_shares(secret: bytes, nodes: Sequence[NodeClient], threshold: int) -> bytes:
    """Leave one share with each node and return the secret's SHA-256, which `collect_key_shares` checks.

    The nodes' clients must be in one namespace of one key. All or nothing is not promised: when a node refuses, its
    error is raised and the nodes before it keep theirs; distributing again needs other nodes or `put_share(replace)`.
    Raises ValueError for an impossible threshold.
    """
    shares = shamir.split(secret, threshold, len(nodes))
    for node, share in zip(nodes, shares, strict=True):
        node.put_share(share, threshold, len(nodes))
    return hashlib.sha256(secret).digest()


def collect_key_shares(nodes: Sequence[NodeClient], sha256: bytes) -> bytes:
    """Return the secret from as many nodes as it takes; nodes that do not answer are passed over.

    Raises SharesMissing, also when the shares give another secret than `sha256` names.
    """
    held: dict[int, Share] = {}
    threshold, reasons = 0, list[str]()
    for number, node in enumerate(nodes, 1):
        try:
            given = node.get_share()
        except SdkError as error:
            reasons.append(f"node {number}: {error}")
            continue
        if given is None:
            reasons.append(f"node {number} keeps no share")
            continue
        share, threshold = given
        held[share.index] = share
        if len(held) >= threshold:
            break
    if not held or len(held) < threshold:
        raise SharesMissing(f"{len(held)} shares were found, {threshold or 'some'} are needed", reasons)
    try:
        secret = shamir.combine(list(held.values()))
    except ValueError as error:
        raise SharesMissing(f"the shares do not belong together ({error})", reasons) from error
    if not hmac.compare_digest(hashlib.sha256(secret).digest(), sha256):
        raise SharesMissing("the shares give another secret: one of them is wrong", reasons)
    return secret
