"""Configuration errors: all problems at once, each with what would be valid."""

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One problem: where the value was written, its key, and what would be valid."""

    where: str
    """The file, variable or flag."""
    key: str
    """Name of the setting or variable."""
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class ConfigError(Exception):
    """The settings cannot be used. `problems` lists every reason; the text has one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
