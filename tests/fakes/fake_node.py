"""A real process that stands in for a miner: takes a launch file, answers /health and /stats, keeps a counter.

Run as `python fake_node.py [behaviour …] --config <launch file>`. Behaviours: `child` starts a second process,
`deaf` ignores SIGTERM, `mute` never listens, `liar` echoes another launch token, `dying` ends at once, `hungry` holds
100 MB.
"""

import json
import os
import signal
import socket
import sys
import time


def main() -> None:
    behaviours = set(sys.argv[1 : sys.argv.index("--config")])
    path = sys.argv[sys.argv.index("--config") + 1]
    with open(path, encoding="utf-8") as file:
        launch = json.load(file)
    if "dying" in behaviours:
        sys.exit(3)
    if "deaf" in behaviours:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in behaviours and os.fork() == 0:
        time.sleep(600)
        return
    ballast = bytearray(os.urandom(1) * (100 * 1024**2)) if "hungry" in behaviours else bytearray()
    if "mute" in behaviours:
        time.sleep(600)
    starts = os.path.join(launch["data_dir"], "starts")
    with open(starts, "a", encoding="utf-8") as file:
        file.write("x")
    token = "other" if "liar" in behaviours else launch["launch_token"]
    listener = socket.create_server((launch["host"], launch["port"]))
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(2)
            request = connection.recv(4096)
            answer = {
                "status": "ok",
                "launch_token": token,
                "starts": os.path.getsize(starts),
                "environment": sorted(os.environ),
                "ballast": len(ballast),
            }
            if b" /stats" in request:
                answer |= {"vectors": 3, "queries_today": 1}
            body = json.dumps(answer).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )


if __name__ == "__main__":
    main()
