"""Posts by Python's requests: `URL HEADERS_FILE BODY_FILE|half`. What arrives goes to standard output as it comes; how it
ended to standard error, as JSON. `half` sends a part of a body and never ends it."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import requests


def half() -> Iterator[bytes]:
    yield b"x" * 100_000
    signal.pause()


url, headers_file, body = sys.argv[1:]
headers = json.loads(Path(headers_file).read_bytes())
status, error = 0, ""
try:
    data = half() if body == "half" else Path(body).read_bytes()
    answer = requests.post(url, data=data, headers=headers, stream=True, timeout=60)
    status = answer.status_code
    for part in answer.iter_content(1):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
except requests.RequestException as failed:
    error = type(failed).__name__
print(json.dumps({"status": status, "error": error}), file=sys.stderr)
