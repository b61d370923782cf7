"""Lists memories page by page (a walk that proves its completeness at the end) and looks records up. Does no I/O."""

from collections.abc import Sequence
from typing import final

from engram.api.node_model import Commitment, Listed, Listing, Reference, References, known
from engram.hotkeys import PublicKey
from engram.memory.proof.keyed_tree import KeyedTree, key_of
from engram.memory.rules import MAX_BATCH
from engram.sdk.errors import ListingIncomplete, MalformedAnswer
from engram.sdk.model import Memory
from engram.sdk.node_calls import Call, NodeCalls, Where


@final
class Walk:
    """One walk. Send `request` and `take` the page, until `done`."""

    def __init__(self, calls: NodeCalls, where: Where | None, node: PublicKey | None) -> None:
        """Take `node`, the key to check the end with; with a filter too it raises ValueError: the root covers all."""
        if node is not None and where:
            raise ValueError("a filtered listing cannot be proved complete: leave out `where` or `node`")
        self.done = False
        self._calls = calls
        self._where = where
        self._node = node
        self._cursors = CursorCheck()
        self._entries: dict[str, bytes] = {}
        self._root: Commitment | None = None

    def request(self) -> Call[Listing]:
        """Return the next page."""
        return self._calls.walk(self._cursors.after, self._where)

    def take(self, page: Listing) -> list[Memory]:
        """Return the memories of a page. Raises MalformedAnswer for a cursor that goes back."""
        fresh = [each for each in page.records if each.cid not in self._entries]  # stored again, listed again
        self._entries |= {each.cid: _entry(each) for each in fresh}
        self._cursors.follow(known(page.next))
        self.done, self._root = known(page.next) is None, known(page.commitment)
        return self._calls.memories([(each.cid, each.metadata, known(each.text)) for each in fresh])

    def check(self) -> None:
        """Check the end, when the walk is done.

        With `node`, raises Impostor when the root is not signed by it, ListingIncomplete when it is that of other
        memories than those that were listed.
        """
        if self._node is None:
            return
        if self._root is None:
            raise ListingIncomplete("the namespace changed while it was listed, so no root was given; list again")
        self._calls.require_root(self._node, self._root)
        tree = KeyedTree(self._entries.values())
        if (tree.root.hex(), len(tree)) != (self._root.root_hex, self._root.count):
            text = f"{len(tree)} memories were listed, and the node has committed to {self._root.count} or to others"
            raise ListingIncomplete(text)


@final
class CursorCheck:
    """Checks a node's cursors: a repeated cursor would loop forever."""

    def __init__(self) -> None:
        self.after: str | None = None
        self.ended = False
        self._seen = set[str]()

    def follow(self, cursor: str | None) -> None:
        """Continue after a page. Raises MalformedAnswer."""
        if cursor is not None and cursor in self._seen:
            raise MalformedAnswer("the node's pages go round in a circle: a cursor came twice")
        self.after, self.ended = cursor, cursor is None
        if cursor is not None:
            self._seen.add(cursor)


def _entry(listed: Listed) -> bytes:
    try:
        return key_of(listed.cid) + bytes.fromhex(known(listed.embedding_hash) or "none")
    except ValueError as error:
        raise MalformedAnswer(f"the node's embedding hash of {listed.cid} is none: {error}") from None


@final
class LookUpWalk:
    """Looks up records, 256 values a request, page by page. Send `request` and `take` the answer, until `done`."""

    def __init__(self, calls: NodeCalls, key: str, values: Sequence[str]) -> None:
        self._calls = calls
        self._key = key
        self._left = list(dict.fromkeys(values))
        self._cursors = CursorCheck()
        self._found: dict[str, Reference] = {}

    @property
    def done(self) -> bool:
        """Whether all values have been looked up."""
        return not self._left

    def request(self) -> Call[References]:
        """Return the next page."""
        return self._calls.look_up_texts(self._key, self._left[:MAX_BATCH], self._cursors.after)

    def take(self, page: References) -> None:
        """Add a page. Raises MalformedAnswer for a cursor that goes back."""
        self._found |= {each.cid: each for each in page.records}
        self._cursors.follow(page.next)
        if page.next is None:
            del self._left[:MAX_BATCH]
            self._cursors = CursorCheck()

    def memories(self) -> list[Memory]:
        """Return what was found, decrypted. Raises Undecryptable."""
        return self._calls.memories(
            [(each.cid, known(each.metadata) or {}, known(each.text)) for each in self._found.values()]
        )
