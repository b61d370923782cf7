"""bittensor-core 0.1.5 is a compiled module without types: everything in it is Any."""

from typing import Any

def __getattr__(name: str) -> Any: ...

KeyfileError: type[Exception]
WrongPasswordError: type[Exception]
