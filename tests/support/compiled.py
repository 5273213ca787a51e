"""What SQLAlchemy compiles, kept for all tests: each has engines of its own, and would compile every statement anew."""

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

_compiled: dict[Any, Any] = {}


class AlikeDialect(PGDialect_asyncpg):
    """A dialect that is every other one's like, as all engines are made alike: statements are known by theirs."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        engine.update_execution_options(compiled_cache=_compiled)


def keep_compiled() -> None:
    """Lets every engine that is made from now on share what was compiled."""
    registry.register("postgresql.asyncpg", __name__, AlikeDialect.__name__)
