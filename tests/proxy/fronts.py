"""nginx and haproxy as other people's proxies and servers, with the requests that they saw."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.proxy.backends import closed_port

Seen = list[tuple[str, str]]
"""Method and target, in order."""


class Program:
    """A running nginx or haproxy."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def seen(self, *, forwarded: bool) -> Seen:
        """The requests of its log; `forwarded`: only those that it passed on."""
        found: Seen = []
        for line in self._log.read_text().splitlines():
            words = line.split("\t")
            if len(words) == 3 and (not forwarded or words[2] not in ("-", "", "<NOSRV>")):
                found.append((words[0], words[1]))
        return found

    def settle(self) -> None:
        """Wait until it logs nothing more."""
        before = -1
        while before != (now := self._log.stat().st_size):
            before = now
            time.sleep(0.3)


@contextmanager
def nginx(folder: Path, upstream: int | None, *, http2: bool = False, upgrades: bool = False) -> Iterator[Program]:
    """nginx in front of a port, or as a server that answers all requests itself.

    It speaks HTTP/2 (without TLS) to its clients, or passes upgrades of the protocol on, which is a known mistake.
    """
    port, log = closed_port(), folder / "nginx-access.log"
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in folders)
    passing = "return 200 ok;"
    if upstream:
        connection = "$http_connection; proxy_set_header Upgrade $http_upgrade" if upgrades else "''"
        passing = f"proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection {connection};"
    h2 = " http2" if http2 else ""
    up = f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 8; }}" if upstream else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ {temporary} {up}\n"
        "log_format plain escape=none '$request_method\t$request_uri\t$upstream_addr';\n"
        f"access_log {log} plain;\n"
        f"server {{ listen 127.0.0.1:{port}{h2}; keepalive_timeout 1s; location / {{ {passing} }} }} }}\n"
    )
    with running(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], port, folder / "nginx.out"):
        yield Program(port, log)


@contextmanager
def haproxy(folder: Path, upstream: int | None, *, http2: bool = False) -> Iterator[Program]:
    """haproxy in front of a port, or as a server that answers all requests itself; `http2` as nginx above."""
    port, log = closed_port(), folder / "haproxy.out"
    answers = "http-request return status 200 content-type text/plain string ok"
    backend = f"server one 127.0.0.1:{upstream}" if upstream else answers
    (folder / "haproxy.cfg").write_text(
        "global\n  log stdout format raw local0\n"
        "defaults\n  mode http\n  log global\n  timeout client 2s\n  timeout server 2s\n  timeout connect 2s\n"
        '  log-format "%HM\t%HU\t%s"\n'
        f"frontend f\n  bind 127.0.0.1:{port}{' proto h2' if http2 else ''}\n  default_backend b\n"
        f"backend b\n  {backend}\n"
    )
    with running(["haproxy", "-f", str(folder / "haproxy.cfg"), "-db"], port, log):
        yield Program(port, log)


@contextmanager
def running(command: list[str], port: int, output: Path) -> Iterator[None]:
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(200):
            assert process.poll() is None, output.read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
