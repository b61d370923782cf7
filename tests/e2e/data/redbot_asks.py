"""REDbot over several URLs: prints what it calls bad or warns of, by URL, as JSON. Runs with .redbot on its path."""

import json
import sys
from configparser import ConfigParser

import thor
from httplint.note import levels
from redbot.resource import HttpResource

settings = ConfigParser()
settings.read_dict({"redbot": {"enable_local_access": "True"}})
waiting = set(sys.argv[1:])
found: dict[str, list[str]] = {}


def ask(url: str) -> None:
    resource = HttpResource(settings["redbot"])

    def done() -> None:
        response = resource.response
        if not response.complete:
            found[url] = [f"no answer: {resource.fetch_error}"]
        elif notes := [each for each in response.notes if each.level in (levels.BAD, levels.WARN)]:
            found[url] = [f"{type(each).__name__}: {each.summary}" for each in notes]
        waiting.discard(url)
        if not waiting:
            thor.stop()

    resource.on("check_done", done)
    resource.set_request(url)
    resource.check()


for each in sys.argv[1:]:
    ask(each)
thor.run()
json.dump(found, sys.stdout)
