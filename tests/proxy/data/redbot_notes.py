"""Lets REDbot look at one URL, with its own further requests, and prints each note's level and summary as JSON."""

import json
import sys
from configparser import ConfigParser

import thor
from redbot.resource import HttpResource

config = ConfigParser()
config.read_dict({"redbot": {"enable_local_access": "True"}})
resource = HttpResource(config["redbot"])
resource.set_request(sys.argv[1])
resource.on("check_done", thor.stop)
resource.check()
thor.run()
assert resource.check_done
print(
    json.dumps(
        {
            "status": resource.response.status_code,
            "error": str(resource.fetch_error or ""),
            "notes": [(note.level.name, type(note).__name__, note.summary) for note in resource.response.notes],
        }
    )
)
