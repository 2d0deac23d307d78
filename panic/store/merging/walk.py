"""The SQL that copies the rows of a table from a source into the target, by what the list of tables says.

The target is the database `main` of a connection, the source is attached as `theirs`. For every table whose
rows are referred to, `temp.map_TABLE` says which row of the target a row of the source is. What is not in
there does not come along, nor does what belongs to it.

    walk = Walk(connection); walk.begin()
    for table in TABLES: walk.take(table)
"""

from __future__ import annotations

from typing import Any

import apsw

from panic.store.merging.tables import TABLES, Table

THESE = "(SELECT value FROM json_each(?))"
"""A list of rows, as the parameter of a statement."""
NUMBERED = ("experiment", *(table.name for table in TABLES if table.is_numbered))


class Walk:
    """A copying of rows from `theirs` into `main`.

    last: the highest row of each table before it began. has_left: whether some of a source was left out.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.last: dict[str, int] = {}
        self.has_left: bool  # `unfinished.begin` says it
        self._known_columns: dict[str, tuple[str, ...]] = {}

    def begin(self) -> None:
        """Forget the source before this one."""
        for name in NUMBERED:
            self.connection.execute(
                f"CREATE TEMP TABLE IF NOT EXISTS map_{name} (old INTEGER PRIMARY KEY, new INTEGER)"
            )
            self.connection.execute(f"DELETE FROM temp.map_{name}")
        for name in (*NUMBERED, "annotation"):
            self.last[name] = self.value(f"SELECT coalesce(max(id), 0) FROM main.{name}")
        self.connection.execute("CREATE TEMP TABLE IF NOT EXISTS renamed (old TEXT PRIMARY KEY, new TEXT)")
        self.connection.execute("DELETE FROM temp.renamed")

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        """The rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    def value(self, sql: str, *parameters: object) -> int:
        """A number that a query gives."""
        return int(self.rows(sql, *parameters)[0][0])

    def take(self, table: Table) -> None:
        """Copy what the target lacks of a table, and join what both have."""
        if table.is_numbered:
            self.number(table)
            self._insert_numbered(table)
        else:
            self._insert(table)

    def number(self, table: Table) -> None:
        """Say which rows of the target those of the source are, or will be."""
        name, last = table.name, self.last
        equal = " AND ".join(f"t.{column} = {value}" for column, value in self._key(table))
        known = [f"{_new(c)} <= {last[table.refers[c]]}" for c in table.owners if c in table.key]
        self.connection.execute(
            f"INSERT OR IGNORE INTO temp.map_{name} SELECT s.id, t.id {_source(table)}"
            f" CROSS JOIN main.{name} AS t ON {equal} WHERE {' AND '.join([*_comes(table), *known])}"
        )
        self.connection.execute(
            f"INSERT INTO temp.map_{name} SELECT s.id, {last[name]} + row_number() OVER (ORDER BY s.id)"
            f" {_source(table)} WHERE {' AND '.join(_comes(table))}"
            f" AND s.id NOT IN (SELECT old FROM temp.map_{name})"
        )

    def _key(self, table: Table) -> list[tuple[str, str]]:
        given = _values(table, self._columns(table))
        return [(column, value) for column, value in given if column in table.key]

    def _insert_numbered(self, table: Table) -> None:
        name, last = table.name, self.last[table.name]
        given = _values(table, self._columns(table))
        names, values = (", ".join(part) for part in zip(*given, strict=True))
        self.connection.execute(
            f"INSERT INTO main.{name} (id, {names}) SELECT own.new, {values} {_source(table)}"
            f" JOIN temp.map_{name} AS own ON own.old = s.id WHERE own.new > {last}"
        )
        if table.joined:
            self.connection.execute(
                f"UPDATE main.{name} AS t SET {table.joined.format(s='s')} FROM theirs.{name} AS s"
                f" JOIN temp.map_{name} AS own ON own.old = s.id WHERE t.id = own.new AND own.new <= {last}"
                f" AND {table.if_joined.format(s='s')}"
            )

    def _insert(self, table: Table) -> None:
        given = _values(table, self._columns(table))
        names, values = (", ".join(part) for part in zip(*given, strict=True))
        comes = _comes(table)
        conflict, distinct = "ON CONFLICT DO NOTHING", ""
        if table.joined:
            conflict = (
                f"ON CONFLICT DO UPDATE SET {table.joined.format(s='excluded')}"
                f" WHERE {table.if_joined.format(s='excluded')}"
            )
        if not table.key:
            equal = " AND ".join(f"known.{column} IS {value}" for column, value in given)
            comes.append(f"NOT EXISTS (SELECT 1 FROM main.{table.name} AS known WHERE {equal})")
            conflict, distinct = "", "DISTINCT"
        self.connection.execute(
            f"INSERT INTO main.{table.name} AS t ({names}) SELECT {distinct} {values} {_source(table)}"
            f" WHERE {' AND '.join(comes)} {conflict}"
        )

    def disagreements(self, table: Table) -> list[tuple[int, str]]:
        """Runs of the target that differ from the source in what has to agree, and where."""
        given = dict(_values(table, self._columns(table)))
        equal = " AND ".join(f"t.{column} = {given[column]}" for column in table.key)
        differ = " OR ".join(f"t.{column} IS NOT {given[column]}" for column in table.agrees)
        step = "min(s.step)" if "step" in table.key else "NULL"
        rows = self.connection.execute(
            f"SELECT t.run, {step} {_source(table)} CROSS JOIN main.{table.name} AS t ON {equal}"
            f" WHERE {_new('run')} <= {self.last['run']} AND ({differ}) GROUP BY t.run"
        )
        return [
            (run, f"its {table.name} is another" if step is None else f"its step {step} differs")
            for run, step in rows
        ]

    def _columns(self, table: Table) -> tuple[str, ...]:
        if table.name not in self._known_columns:
            rows = self.connection.execute(f"PRAGMA main.table_info({table.name})")
            self._known_columns[table.name] = tuple(name for _, name, *_ in rows if name != "id")
        return self._known_columns[table.name]


def _new(column: str) -> str:
    return f"m_{column}.new"


def _values(table: Table, columns: tuple[str, ...]) -> list[tuple[str, str]]:
    """The columns, and what is written into them."""
    plain = {column: _new(column) if column in table.refers else f"s.{column}" for column in columns}
    return [
        (column, table.written.get(column, "{" + column + "}").format(s="s", **plain)) for column in columns
    ]


def _source(table: Table) -> str:
    """FROM the source's rows, with the target's numbers of what they refer to."""
    maps = (
        f" LEFT JOIN temp.map_{of} AS m_{column} ON m_{column}.old = s.{column}"
        for column, of in table.refers.items()
    )
    return f"FROM theirs.{table.name} AS s" + "".join(maps)


def _comes(table: Table) -> list[str]:
    """Conditions on rows of the source that come: that their owners do, above all."""
    return [
        table.only.format(s="s"),
        *(f"(s.{column} IS NULL OR {_new(column)} NOTNULL)" for column in table.owners),
    ]
