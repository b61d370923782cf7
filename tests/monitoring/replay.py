"""The series of engram.test.yml played to a real Prometheus, whose minutes are shortened: each alert fires and clears.

What promtool works out, a Prometheus then does with what it scraped: the same rules, the same values, one description.
Each test is a target of its own, with an instance of its own, so that none of them sees the series of another.
"""

import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import yaml

from tests.shared import free_port

MINUTE_S: Final = 0.6
"""How long a minute of the rules and series takes here."""
_GRACE_MINUTES: Final = 10
_START_S: Final = 60.0
_RANGE: Final = re.compile(r"(?<=\[)(\d+)([smh])(?=\])|(?<=for: )(\d+)([smh])\b")
_MINUTES: Final = {"s": 1 / 60, "m": 1.0, "h": 60.0}
_VALUES: Final = re.compile(r"([\d.e]+)(?:\+([\d.]+))?(?:x(\d+))?")
_UP: Final = "up"
_TIME: Final = "_timestamp_seconds{"
"""In the names of series whose values are times: in the file, seconds from its first minute."""


class Series(NamedTuple):
    """A series as the file has it, and its value at each minute."""

    name: str
    values: list[float]


class Case(NamedTuple):
    """An alert, what makes it fire, and the minute from which it must be silent again."""

    alert: str
    series: list[Series]
    clear_at: int

    @property
    def instance(self) -> str:
        """The target that the alert has to name."""
        return f"g-{self.alert}"


def values_of(text: str) -> list[float]:
    """Return the values that promtool reads in a series.

    >>> values_of("1 0x2 5+10x2")
    [1.0, 0.0, 0.0, 0.0, 5.0, 15.0, 25.0]
    """
    found: list[float] = []
    for part in text.split():
        match = _VALUES.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no value of a series that is read here")
        first, step, times = float(match[1]), float(match[2] or 0), int(match[3] or 0)
        found += [first + step * number for number in range(times + 1)]
    return found


def cases_of(path: Path) -> list[Case]:
    """Read the tests of a file for promtool, one for each alert."""
    cases = []
    for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
        looked = test["promql_expr_test"]
        match = re.search(r'alertname="(\w+)"', looked[0]["expr"])
        assert match is not None, looked[0]["expr"]
        series = [Series(each["series"], values_of(each["values"])) for each in test["input_series"]]
        cases.append(Case(match[1], series, int(looked[-1]["eval_time"].removesuffix("m"))))
    return cases


def shortened(rules: str) -> str:
    """Return the rules with every range and every `for` as long as the minutes here.

    >>> shortened("expr: increase(x[1h]) > 3600\\n for: 30m")
    'expr: increase(x[36000ms]) > 3600\\n for: 18000ms'
    """

    def short(match: re.Match[str]) -> str:
        number, unit = match[1] or match[3], match[2] or match[4]
        return f"{round(int(number) * _MINUTES[unit] * MINUTE_S * 1000)}ms"

    return _RANGE.sub(short, rules)


@final
class Replay:
    """A server with a page of metrics for each case, whose values move on with the time since `begin`."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = {case.alert: case for case in cases}
        self._began: float | None = None
        replay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page = replay.page(self.path.strip("/"))
                content = (page or "").encode()
                self.send_response(503 if page is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self) -> None:
        """Let the first minute begin: until then each series stands at its first value."""
        self._began = time.monotonic()

    @property
    def minute(self) -> int:
        """How many minutes have passed."""
        return 0 if self._began is None else int((time.monotonic() - self._began) / MINUTE_S)

    def page(self, alert: str) -> str | None:
        """Return the metrics of a case as they are now; None when its target is down."""
        case, minute, lines = self._cases[alert], self.minute, []
        for name, values in case.series:
            value = values[min(minute, len(values) - 1)]
            if name.startswith(_UP + "{"):
                if value == 0:
                    return None
                continue
            if _TIME in name and value > 0:
                value += time.time() - minute * 60.0  # the rule reads this machine's clock
            mine = name.replace('instance="g"', f'instance="{case.instance}"')
            lines.append(f"{mine} {value}\n")
        return "".join(lines)

    def scrape_configs(self) -> list[dict[str, Any]]:
        """Return the targets as Prometheus is given them: the one of a case about `up` is the only one named engram."""
        return [
            {
                "job_name": "engram" if any(name.startswith(_UP + "{") for name, _ in case.series) else alert,
                "metrics_path": f"/{alert}",
                "honor_labels": True,
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{self._server.server_address[1]}"],
                        "labels": {"instance": case.instance},
                    }
                ],
            }
            for alert, case in self._cases.items()
        ]


class Played(NamedTuple):
    """The alerts that did not do what they must."""

    early: set[str]
    """Fired before anything was wrong."""
    silent: set[str]
    """Never fired."""
    stuck: set[str]
    """Did not clear."""


def play(rules: Path, tests: Path, folder: Path) -> Played:
    """Play all cases of `tests` to a Prometheus with `rules`; takes about a minute. `folder` is for its files."""
    cases = cases_of(tests)
    wanted = {(case.alert, case.instance) for case in cases}
    (folder / "rules.yml").write_text(shortened(rules.read_text(encoding="utf-8")), encoding="utf-8")
    replay, port, every = Replay(cases), free_port(), f"{round(MINUTE_S * 1000)}ms"
    settings = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules.yml"],
        "scrape_configs": replay.scrape_configs(),
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
    command = ["prometheus", f"--web.listen-address=127.0.0.1:{port}", "--config.file=prometheus.yml"]
    process = subprocess.Popen([*command, "--storage.tsdb.path=data", "--log.level=error"], cwd=folder)
    try:
        _await_scraped(port, cases)
        early = _firing(port) & wanted
        replay.begin()
        fired, still = set[tuple[str, str]](), wanted
        last = max(case.clear_at for case in cases) + _GRACE_MINUTES
        while replay.minute < last and (fired < wanted or still):
            time.sleep(MINUTE_S / 2)
            still = _firing(port) & wanted
            fired |= still
        return Played(*({alert for alert, _ in found} for found in (early, wanted - fired, still)))
    finally:
        process.terminate()
        process.wait(30)
        replay.close()


def _get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def _firing(port: int) -> set[tuple[str, str]]:
    """Return the alerts that fire, with the target that each names."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
        for alert in _get(port, "/api/v1/alerts")["alerts"]
        if alert["state"] == "firing"
    }


def _await_scraped(port: int, cases: list[Case]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            targets = _get(port, "/api/v1/targets")["activeTargets"]
            if len(targets) == len(cases) and all(target["health"] == "up" for target in targets):
                return
        time.sleep(0.2)
    raise TimeoutError(f"Prometheus on port {port} did not read {len(cases)} pages within {_START_S} s")
