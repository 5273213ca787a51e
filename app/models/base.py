"""What every table shares."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKeyConstraint, MetaData, Text, func
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "ck": "%(table_name)s_%(constraint_name)s_check",
}

ClientId = Annotated[str, mapped_column(Text(collation="C"))]
"""An id chosen by a client, compared byte by byte."""

Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())]
BigId = Annotated[int, mapped_column(BigInteger, autoincrement=False)]


class Base(DeclarativeBase):
    """The root of the tables' metadata."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {str: Text}


def one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    """Returns a constraint that holds a text column to the words of an enum."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def of_conversation() -> ForeignKeyConstraint:
    """Returns the constraint that makes a row go with its conversation."""
    return ForeignKeyConstraint(
        ["workspace_id", "conversation_id"],
        ["conversations.workspace_id", "conversations.conversation_id"],
        ondelete="CASCADE",
    )
