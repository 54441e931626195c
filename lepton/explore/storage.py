"""Runs that are done, in a database: a file of SQLite, or a server's by its URL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from lepton.errors import InputError
from lepton.explore.events import Run
from lepton.explore.extras import needs

__all__ = ["Storage"]

_AT_ONCE = 500
"""Keys that one query asks for."""


class Storage:
    """A table of runs by their keys; what has been added survives any end of the process."""

    def __init__(self, url: str) -> None:
        """Open a database, and make the table if it has none.

        Raises:
            InputError: the URL is wrong, or the database cannot be opened.
        """
        sql = needs("sqlalchemy")
        self._errors, self._select = sql.exc, sql.select
        self._url = url
        try:
            self._engine: Any = sql.create_engine(url)
            self._table: Any = sql.Table(
                "lepton_runs",
                sql.MetaData(),
                sql.Column("run", sql.String(64), primary_key=True),
                sql.Column("result", sql.Text, nullable=False),
            )
            if self._engine.dialect.name == "sqlite":
                sql.event.listen(self._engine, "connect", _quick)
            self._table.metadata.create_all(self._engine)
        except (sql.exc.SQLAlchemyError, ModuleNotFoundError) as error:
            raise InputError(f"storage {_shown(url)}: {_reason(error)}") from None

    def get(self, keys: Iterable[str]) -> dict[str, Run]:
        """Return the runs that are known, by key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Run] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                query = self._select(self._table).where(self._table.c.run.in_(part))
                for key, text in connection.execute(query):
                    found[key] = Run(**json.loads(text))
        return found

    def add(self, runs: Mapping[str, Run]) -> None:
        """Add runs, at once; one that another process has added meanwhile is the same.

        Raises:
            InputError: the database cannot be written.
        """
        for key, run in runs.items():
            row = {"run": key, "result": json.dumps(asdict(run))}
            try:
                with self._engine.begin() as connection:
                    connection.execute(self._table.insert(), row)
            except self._errors.IntegrityError:
                continue
            except self._errors.SQLAlchemyError as error:
                raise InputError(f"storage {_shown(self._url)}: {_reason(error)}") from None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _quick(connection: Any, _record: object) -> None:
    """Let SQLite append to a log: a killed process loses nothing, and a row takes no full sync."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _shown(url: str) -> str:
    """Return a URL without its password."""
    scheme, found, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{found}{user.partition(':')[0]}{at}{place}"


def _reason(error: Exception) -> str:
    """Return the first line of what a database says."""
    text = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"cannot be used: {text[0] if text else type(error).__name__}"
