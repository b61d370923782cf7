"""A newer build under an open page: offered when the key of this one signed it, and taken when the person says so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engram.gateway import phone
from tests.e2e.gateway_process import FAST, GatewayProcess
from tests.phone.browser import Browser, needs_app, open_browser
from tests.phone.front import DEVELOPMENT, MARK, Front, newer_build, open_front
from tests.shared import free_port

pytestmark = [needs_app, pytest.mark.heavy, pytest.mark.external, pytest.mark.xdist_group("engine")]

WAKE = "document.dispatchEvent(new Event('visibilitychange'))"
IS_NEWER = f"fetch('/app/').then(answer => answer.text()).then(text => text.includes('{MARK}'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("phone")
    with GatewayProcess(folder / "data", settings=FAST) as gateway, open_front(gateway.start().url, phone.FOLDER) as it:
        yield it


def visit(front: Front, browser: Browser, profile: str, newer: Path) -> None:
    """Open the app, let it keep itself, and put a newer build in its place."""
    front.folder = phone.FOLDER
    browser.do("open", {"url": front.url, "profile": profile})
    browser.do("create")
    browser.do("worker")
    front.folder = newer
    browser.do("evaluate", WAKE)


def test_a_newer_build_of_the_same_key_is_taken_when_the_person_says_so(
    tmp_path: Path, front: Front, browser: Browser
) -> None:
    visit(front, browser, "same key", newer_build(tmp_path / "newer", DEVELOPMENT))
    browser.do("sees", "A new version is ready.")
    browser.do("go", "start")
    browser.do("fill", {"label": "Other (hours)", "text": "3"})
    assert browser.do("evaluate", IS_NEWER) is False  # what is open works on, as it is
    browser.do("fill", {"label": "Other (hours)", "text": ""})
    browser.do("click", "Update")
    browser.do("sees", "Start mining")
    browser.do("gone", "A new version is ready.")
    assert browser.do("evaluate", IS_NEWER) is True
    browser.do("go", "")
    browser.do("sees", "Your words are not checked yet")  # the identity is there as before


@pytest.mark.parametrize("seed", [b"\x08" * 32, pytest.param(None, marks=pytest.mark.nightly)])
def test_a_build_that_another_key_signed_or_none_is_not_offered(
    tmp_path: Path, front: Front, browser: Browser, seed: bytes | None
) -> None:
    visit(front, browser, f"other key {seed is None}", newer_build(tmp_path / "newer", seed))
    browser.do("sees", "A newer build is here that the key of this one did not sign")
    assert "A new version is ready" not in browser.do("text")
    browser.do("go", "start")
    browser.do("click", "Review and pay")
    browser.do("enabled", "Pay $0.10")
    assert browser.do("evaluate", IS_NEWER) is False


@pytest.mark.nightly
def test_a_build_with_a_file_that_is_not_the_listed_one_is_not_kept(
    tmp_path: Path, front: Front, browser: Browser
) -> None:
    newer = newer_build(tmp_path / "newer", DEVELOPMENT)
    script = next(newer.glob("Start-*.js"))
    script.write_text(script.read_text() + "//")
    visit(front, browser, "half a copy", newer)
    browser.do("settled")
    assert len(browser.do("installed")) <= 3
    assert browser.do("evaluate", IS_NEWER) is False
    assert "A new version is ready" not in browser.do("text")


def test_an_app_that_is_switched_off_leaves_no_worker_in_browsers_that_had_it(tmp_path: Path, browser: Browser) -> None:
    port = free_port()
    with GatewayProcess(tmp_path / "data", settings=FAST, port=port) as gateway:
        browser.do("open", {"url": gateway.start().url, "profile": "off"})
        browser.do("create")
        browser.do("worker")
        assert len(browser.do("installed")) == 2
    with GatewayProcess(tmp_path / "data", settings=FAST + "[phone]\nserve = 'off'\n", port=port) as gateway:
        gateway.start()
        browser.do("evaluate", WAKE)  # the worker is looked for
        browser.do("sees", "A newer build is here")
        browser.do("close", "off")
        browser.do("open", {"url": gateway.url, "profile": "off"})
        browser.do("uninstalled")
        browser.do("reload")
        browser.do("sees", "not_found")
