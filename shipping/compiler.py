"""Compiles the modules named on standard input: a JSON list of (source, path in the image, target). Run by path."""

import json
import py_compile
import sys

if __name__ == "__main__":
    for source, path, target in json.load(sys.stdin):
        py_compile.compile(
            source, target, path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
