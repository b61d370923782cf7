"""The orchestrator's own memory: which jobs were posted, which results came, how often each."""

import json
import os
from pathlib import Path
from typing import Any

ENVELOPE_BYTES = 64
"""Of an acknowledgement around the jobs in it."""


class Desk:
    """Jobs and results, in a journal that survives kill -9 where a path is given."""

    def __init__(self, journal: Path | None = None) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.results: dict[str, Any] = {}
        """The first result of each job."""
        self.deliveries: dict[str, int] = {}
        """How often each result came as an event."""
        self.contradictions: list[str] = []
        """Jobs of which two results were not the same."""
        self._file = None
        if journal is not None:
            if journal.exists():
                for line in journal.read_text().splitlines():
                    self._take(json.loads(line))
            self._file = journal.open("a")

    def post(self, job: dict[str, Any]) -> None:
        """Keep a job with an id."""
        self._note({"job": job})

    def settle(self, job_id: str, result: Any) -> None:
        """Keep a result."""
        self._note({"id": job_id, "result": result})

    @property
    def open(self) -> list[dict[str, Any]]:
        """Jobs without a result."""
        return [job for job_id, job in self.jobs.items() if job_id not in self.results]

    def missing(self, jobs: list[str], limit: int = 1_000, max_bytes: int = 1_000_000) -> list[dict[str, Any]]:
        """Return open jobs but those named, within both bounds; one that is too large for them is left out."""
        known, left = set(jobs), max_bytes - ENVELOPE_BYTES
        found: list[dict[str, Any]] = []
        for job in self.open:
            size = len(json.dumps(job)) + 2
            if len(found) < limit and job["id"] not in known and size <= left:
                left -= size
                found.append(job)
        return found

    def _note(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if "job" in entry:
            self.jobs[entry["job"]["id"]] = entry["job"]
            return
        job_id, result = entry["id"], entry["result"]
        if job_id in self.results and self.results[job_id] != result:
            self.contradictions.append(job_id)
        self.results.setdefault(job_id, result)
