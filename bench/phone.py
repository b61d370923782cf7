"""The app: what a first visit loads, when it shows something and can be used on a slow phone, how long the way to an
active node takes, and what a visit costs the gateway.

The gateway is the real one with play money; the browser is Chromium, headless. Slow is 4x less CPU and Lighthouse's
simulated slow 4G (1.6 Mbit/s, 150 ms). `python -m bench.phone [--quick]`.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.support.report import print_line
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, open_browser

QUICK = "--quick" in sys.argv
VISITS = 3 if QUICK else 7
JOBS = 1 if QUICK else 3
CPU_VISITS = 10 if QUICK else 40
WANTED = {"first_load_kb": "<= 60", "later_screen_kb": "<= 30", "interactive_ms": "<= 2500", "job_s": "<= 30"}


def visits(browser: Browser, url: str) -> list[dict[str, Any]]:
    return [browser.do("visit", {"url": url, "slow": True, "profile": f"visit {n}"}) for n in range(VISITS)]


def job_s(browser: Browser, url: str, n: int) -> float:
    began = perf_counter()
    browser.do("open", {"url": url, "profile": f"job {n}"})
    browser.do("create")
    browser.do("pay")
    browser.do("status", "active")
    return perf_counter() - began


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        settings = FAST + "[sessions]\nlive_per_hotkey = 100\n"
        with GatewayProcess(Path(folder) / "data", settings=settings, is_warm=False) as gateway:
            url = gateway.start().url
            slow = visits(browser, url)
            jobs = [job_s(browser, url, n) for n in range(JOBS)]
            screens = browser.do("screens", {"url": url})
            before = cpu_ms(gateway.pid)
            for n in range(CPU_VISITS):
                browser.do("visit", {"url": url, "slow": False, "profile": f"quick {n}"})
            per_visit = (cpu_ms(gateway.pid) - before) / CPU_VISITS
    figures = {
        "first_load_kb": statistics.median(each["kb"] for each in slow),
        "first_paint_ms": statistics.median(each["paint"] for each in slow),
        "interactive_ms": statistics.median(each["interactive"] for each in slow),
        "later_screen_kb": max(screens.values()),
        "job_s": statistics.median(jobs),
        "gateway_cpu_ms_per_visit": per_visit,
    }
    print_line("phone", figures, {}, {}, WANTED, screens=screens, load=os.getloadavg()[0])


if __name__ == "__main__":
    main()
