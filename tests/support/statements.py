"""What the service asked PostgreSQL, from the server's own log, and whether each statement stays in one workspace.

A statement stays in a workspace if every table of workspaces in it has ``workspace_id = $n``, or ``workspace_id`` equal
to that of another table that has, where no ``OR`` and no outer join lets rows past it. An ``INSERT`` gives that value.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from app.models import Base

TABLES = frozenset(table.name for table in Base.metadata.tables.values() if "workspace_id" in table.columns)
APPLICATION = "chat-insights"

EXCEPTIONS: dict[tuple[str, str, str | None], str] = {
    ("SELECT", "memberships", "user_id"): "sign-in and GET /auth/me: of which workspaces somebody is a member",
    ("UPDATE", "memberships", "invited_email"): "sign-in: who proves to have an address accepts its invitations",
    ("SELECT", "trend_changes", None): "the worker looks for workspaces whose trends are to be brought up to date",
    ("SELECT", "webhooks", "enabled"): "workers and health: which webhooks something is due for, or is kept too long",
    ("SELECT", "workspaces", "name"): "the command line: an operator names a workspace",
    ("SELECT", "workspaces", None): "the command line lists them; at start, one is read for each master key",
}
"""What may ask across workspaces: the verb, the table, and the column that is bound to a parameter instead.

Without a column, all of the table may be read, if the statement reads no other one.
"""

SETTINGS = {
    "log_statement": "all",
    "log_line_prefix": "%a %d %p ",
    "log_parameter_max_length": "0",  # the values are none of the log's business
}
_RECORD = re.compile(r"^(\S+) \S+ \d+ ([A-Z]+):  (.*(?:\n\t.*)*)\n", re.MULTILINE)
_STATEMENT = re.compile(r"(?:statement|execute [^:]+): (?:EXPLAIN )?")
_LEVELS = (exp.Select, exp.Insert, exp.Update, exp.Delete)
Reference = tuple[int, str]


class Record(NamedTuple):
    """An entry of the log."""

    application: str
    level: str
    text: str

    @property
    def statement(self) -> str | None:
        """The statement that the entry is about."""
        found = _STATEMENT.match(self.text) if self.level == "LOG" else None
        return self.text[found.end() :] if found else None


class ServerLog:
    """The log of a PostgreSQL server, read piece by piece; without a file there is none."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._offset = 0

    def new(self) -> list[Record]:
        """Returns what the service wrote into the log since the last call."""
        if self.file is None:
            return []
        with self.file.open("rb") as stream:
            stream.seek(self._offset)
            raw = stream.read()
        raw = raw[: raw.rfind(b"\n") + 1]
        self._offset += len(raw)
        records = (Record(*match) for match in _RECORD.findall(raw.decode("utf-8", "replace")))
        return [r._replace(text=r.text.replace("\n\t", "\n")) for r in records if r.application == APPLICATION]

    def strays(self, records: list[Record]) -> list[str]:
        """Returns the statements that leave their workspace, with the reason."""
        statements = [record.statement for record in records if record.statement]
        return [f"{reason}\n{text}" for text in dict.fromkeys(statements) for reason in check(text).problems]


class Verdict(NamedTuple):
    """What is wrong with a statement, and which exceptions it needs."""

    problems: tuple[str, ...]
    exceptions: frozenset[tuple[str, str, str | None]] = frozenset()


@functools.cache
def check(sql: str) -> Verdict:
    """Returns what is wrong with a statement."""
    named = TABLES.intersection(re.findall(r"\w+", re.sub(r"--.*|\bas\s+\w+", "", sql.lower())))
    if not named:
        return Verdict(())
    try:
        parsed = sqlglot.parse(sql, read="postgres")
    except SqlglotError:
        return Verdict(("cannot be parsed",))
    checks = [_Statement(statement) for statement in parsed if statement]
    problems = [problem for each in checks for problem in each.problems()]
    if unseen := named.difference(*(each.tables for each in checks)):
        problems.append(f"names {', '.join(sorted(unseen))}, which the parser did not find")
    return Verdict(tuple(problems), frozenset(used for each in checks for used in each.exceptions))


class _Statement:
    def __init__(self, statement: exp.Expr) -> None:
        self._statement = statement
        self._levels = [node for node in statement.walk() if isinstance(node, _LEVELS)]
        self._bound: set[Reference] = set()
        self.tables = {table.name for table in statement.find_all(exp.Table)}
        self.exceptions: set[tuple[str, str, str | None]] = set()

    def problems(self) -> Iterator[str]:
        """Yields what is wrong."""
        for cte in self._statement.find_all(exp.CTE):
            if cte.alias in TABLES:
                yield f"{cte.alias} is another thing here"
        for table in self._statement.find_all(exp.Table):
            if table.name in TABLES and table.find_ancestor(*_LEVELS, exp.Merge) not in self._levels:
                yield f"{table.name} is used in another way than by SELECT, INSERT, UPDATE or DELETE"
        for level in self._levels:
            own = _own(level)
            if isinstance(level, exp.Insert):
                yield from self._insert_problems(level)
                continue
            self._bind(level, own)
            for alias, name in own.items():
                if (id(level), alias) not in self._bound and not self._whole(level, name):
                    yield f"{_verb(level)} {name} AS {alias}: no workspace_id = $n"
            if isinstance(level, exp.Update) and _assigns(level.expressions):
                yield "moves rows to another workspace"

    def _bind(self, level: exp.Expr, own: dict[str, str]) -> None:
        conditions = list(_conditions(level, frozenset(own)))
        before = -1
        while before != len(self._bound):
            before = len(self._bound)
            for condition, restricted in conditions:
                sides = condition.left.unnest(), condition.right.unnest()
                for one, other in (sides, sides[::-1]):
                    found = self._restricts(level, own, one, other)
                    if found in restricted:
                        self._bound.add((id(level), found))

    def _restricts(self, level: exp.Expr, own: dict[str, str], one: exp.Expr, other: exp.Expr) -> str:
        """Returns the alias of the level that is bound by ``one = other``, or an empty text."""
        if not isinstance(one, exp.Column):
            return ""
        alias = _alias(level, own, one)
        if one.name == "workspace_id":
            return alias if _is_parameter(other) or self._is_bound(level, other) else ""
        exception = _verb(level), own.get(alias, ""), one.name
        if exception in EXCEPTIONS and _is_parameter(other):
            self.exceptions.add(exception)
            return alias
        return ""

    def _is_bound(self, level: exp.Expr | None, value: exp.Expr) -> bool:
        """Says whether a value is the workspace of a bound table, here or further out."""
        if not isinstance(value, exp.Column) or value.name != "workspace_id":
            return False
        while level:
            if value.table in _sources(level) or not value.table:
                return (id(level), _alias(level, _own(level), value)) in self._bound
            level = level.find_ancestor(*_LEVELS)
        return False

    def _whole(self, level: exp.Expr, table: str) -> bool:
        exception = _verb(level), table, None
        alone = exception in EXCEPTIONS and [each.name for each in self._statement.find_all(exp.Table)] == [table]
        self.exceptions.update({exception} if alone else ())
        return alone

    def _insert_problems(self, insert: exp.Insert) -> Iterator[str]:
        [table] = _own(insert).values() or [""]
        if not table:
            return
        columns = [column.name for column in insert.this.expressions]
        if "workspace_id" not in columns:
            yield f"INSERT {table}: no workspace_id"
            return
        source = insert.expression
        rows = (
            [row.expressions for row in source.expressions] if isinstance(source, exp.Values) else [source.expressions]
        )
        self._bind(source, _own(source))
        values = [row[columns.index("workspace_id")].unalias() if len(row) == len(columns) else source for row in rows]
        if not all(_is_parameter(value) or self._is_bound(source, value) for value in values):
            yield f"INSERT {table}: workspace_id is not $n"
        conflict = insert.args.get("conflict")
        if conflict and conflict.expressions:
            if "workspace_id" not in [key.name for key in conflict.args.get("conflict_keys") or ()]:
                yield f"INSERT {table}: what it conflicts with may be another workspace's"
            if _assigns(conflict.expressions):
                yield "moves rows to another workspace"


def _conditions(level: exp.Expr, own: frozenset[str]) -> Iterator[tuple[exp.EQ, frozenset[str]]]:
    """Yields the equations that hold for every row, with the aliases whose rows they restrict."""
    where = level.args.get("where")
    found = [(where.this, own)] if where else []
    for join in level.args.get("joins") or ():
        right = own & {join.this.alias_or_name}
        sides = {"": own, "LEFT": right, "RIGHT": own - right}
        if on := join.args.get("on"):
            found.append((on, sides.get(join.side, frozenset())))
    for condition, restricted in found:
        plain = condition.unnest()
        if isinstance(plain, exp.And):
            found += [(plain.left, restricted), (plain.right, restricted)]
        elif isinstance(plain, exp.EQ):
            yield plain, restricted


def _verb(level: exp.Expr) -> str:
    return type(level).__name__.upper()


def _of(level: exp.Expr, *kinds: type[exp.Expr]) -> Iterator[exp.Expr]:
    return (found for found in level.find_all(*kinds) if found.find_ancestor(*_LEVELS) is level)


def _own(level: exp.Expr) -> dict[str, str]:
    """Returns the tables of workspaces that a level itself is about, by alias."""
    return {table.alias_or_name: table.name for table in _of(level, exp.Table) if table.name in TABLES}


def _sources(level: exp.Expr) -> set[str]:
    """Returns every name that a column can stand behind."""
    return {found.alias_or_name for found in _of(level, exp.Table, exp.Subquery, exp.Lateral, exp.Unnest)}


def _alias(level: exp.Expr, own: dict[str, str], column: exp.Column) -> str:
    """Returns the alias of the level that a column is of; without a name, it is of the only table."""
    if column.table:
        return column.table if column.table in own else ""
    return next(iter(own)) if len(own) == 1 else ""


def _is_parameter(value: exp.Expr) -> bool:
    while isinstance(value, exp.Cast | exp.Paren):
        value = value.this
    return isinstance(value, exp.Parameter)


def _assigns(expressions: list[exp.Expr]) -> bool:
    return any(column.name == "workspace_id" for each in expressions for column in each.this.find_all(exp.Column))
