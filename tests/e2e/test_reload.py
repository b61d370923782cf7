"""SIGHUP and the service manager, on a real gateway."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from config import load
from tests.e2e.gateway_process import GatewayProcess


def test_a_gateway_tells_its_manager_and_reads_its_settings_again_at_a_hangup(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with GatewayProcess(tmp_path / "data", environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as gateway:
            gateway.start()
            while (ready := manager.recv(4_096).decode().splitlines())[0].startswith("EXTEND_TIMEOUT_USEC="):
                pass  # while the ledger opens
            assert ready[0] == "READY=1"
            assert gateway.url in ready[1]
            settings = tmp_path / "data.toml"
            settings.write_text(
                settings.read_text().replace("[log]\n", '[log]\nlevel = "WARNING"\n') + "[relay]\nround_s = 77.0\n"
            )
            gateway.send_signal(signal.SIGHUP)
            assert manager.recv(4_096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4_096).decode().splitlines() == ready
            assert gateway.terminate() == 0
            assert manager.recv(4_096).startswith(b"STOPPING=1")
        lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
        (waiting,) = [line for line in lines if line["event"] == "settings_wait_for_restart"]
        assert waiting["keys"] == ["relay.round_s"]
        assert "stopping" not in {line["event"] for line in lines}, "it is logged at INFO, which is off by now"


@pytest.mark.parametrize("given", [True, False])
def test_the_data_folder_of_a_service_is_the_one_that_its_manager_made(tmp_path: Path, given: bool) -> None:
    environ = {"STATE_DIRECTORY": f"{tmp_path}/state:{tmp_path}/other"} if given else {}
    assert load("local", environ=environ, env_files=()).settings.data_dir == (f"{tmp_path}/state" if given else "data")


def test_a_setting_wins_over_the_folder_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "engram.toml").write_text('data_dir = "mine"\n')
    environ = {**os.environ, "STATE_DIRECTORY": str(tmp_path)}
    loaded = load("local", [tmp_path / "engram.toml"], environ=environ, env_files=())
    assert loaded.settings.data_dir == "mine"
    assert "STATE_DIRECTORY" not in str(loaded.origins["data_dir"])
