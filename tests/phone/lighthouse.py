"""Lighthouse's scores of a page, in Chromium."""

import json
import os
import subprocess
from pathlib import Path

from tests.browser.chromium import CHROMIUM

FOLDER = Path(__file__).parents[1] / "lighthouse"
PROGRAM = FOLDER / "node_modules" / "lighthouse" / "cli" / "index.js"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")


def scores(url: str) -> dict[str, float]:
    """Return the scores (0 to 100) of one run, on Lighthouse's slow phone and network. Raises CalledProcessError."""
    done = subprocess.run(
        [
            *("node", PROGRAM, url, "--quiet", "--output=json", f"--only-categories={','.join(CATEGORIES)}"),
            "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        ],
        env=os.environ | {"CHROME_PATH": CHROMIUM or ""},
        stdout=subprocess.PIPE,
        check=True,
        timeout=180,
    )
    found = json.loads(done.stdout)["categories"]
    return {name: 100 * found[name]["score"] for name in CATEGORIES}
