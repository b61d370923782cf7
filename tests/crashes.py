"""A fixture for the conftest of an area: a crash that no test expected fails the test in which it happened.

A test that crashes something on purpose says so with `@may_crash(ValueError)`, or takes the fixture.
"""

from collections.abc import Iterator

import pytest

from actors.testing import Crashes, no_unexpected_crashes


def may_crash(*errors: type[BaseException]) -> pytest.MarkDecorator:
    """Marks a test, or a module as its `pytestmark`: a crash by one of `errors` is part of what it shows."""
    return pytest.mark.crashes.with_args(*errors)


@pytest.fixture(autouse=True)
def crashes(request: pytest.FixtureRequest) -> Iterator[Crashes]:
    """What crashed in this test, and what may."""
    with no_unexpected_crashes() as crashes:
        for marker in request.node.iter_markers("crashes"):
            crashes.expect(*marker.args)
        yield crashes
