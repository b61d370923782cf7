"""What httplint says of an answer."""

from httplint import HttpResponseLinter
from httplint.note import levels


def linted(status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """What httplint calls bad in an answer or warns of, but for its explanation of what a status means."""
    linter = HttpResponseLinter()
    linter.base_uri = "http://miner.example/x"
    linter.process_response_topline(b"HTTP/1.1", str(status).encode(), b"")
    linter.process_headers([(name.encode(), value.encode()) for name, value in headers.items()])
    linter.feed_content(body)
    linter.finish_content(True)
    found = [note for note in linter.notes if not type(note).__name__.startswith("STATUS_")]
    return [f"{note.summary}" for note in found if note.level in (levels.BAD, levels.WARN)]
