"""How the tables' few types are written in PostgreSQL: every integer has 64 bits, every real number 53."""

from typing import Any, Final

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import base
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

DRIVER: Final = "postgresql+engram"


class _Types(base.PGTypeCompiler):
    """INTEGER has 32 bits there and REAL 24, in which neither amounts nor unix times fit."""

    def visit_INTEGER(self, type_: Any, **kw: Any) -> str:  # noqa: N802 - the name is SQLAlchemy's
        return "BIGINT"

    def visit_REAL(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "DOUBLE PRECISION"

    def visit_VARCHAR(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "TEXT"


class Dialect(PGDialect_psycopg):
    """SQLAlchemy's dialect of psycopg with these types."""

    type_compiler_cls = _Types
    supports_statement_cache = True


registry.register("postgresql.engram", __name__, "Dialect")
NUMBERED: Final = Dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
"""For statements that are prepared by the server: parameters are $1, $2, …"""
