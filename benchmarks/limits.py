"""What the databases themselves allow: the same rows written by plain drivers, one commit a step or shared commits.

Four steps a run, as the engine writes them: a step's outcome, the next one's intent and where the run stands are one
commit, and a first commit takes the run up.
"""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

STEPS = 4
RESULT = json.dumps({"transaction_id": "TXN-1", "amount": 99.99, "status": "completed"})
TABLES = (
    "CREATE TABLE run (id {key}, status TEXT NOT NULL, step INTEGER NOT NULL)",
    "CREATE TABLE record (run INTEGER, step INTEGER, outcome TEXT, result TEXT, PRIMARY KEY (run, step))",
)
BEGIN = "INSERT INTO record (run, step) VALUES (?, ?)"
END = "UPDATE record SET outcome = 'succeeded', result = ? WHERE run = ? AND step = ?"
MOVE = "UPDATE run SET step = ? WHERE id = ?"


def postgres(url: str, *, runs: int, together: int, connections: int) -> float:
    """Runs a second, `together` in one commit, on that many connections at once."""
    with psycopg.connect(url, autocommit=True) as setup:
        setup.execute("DROP TABLE IF EXISTS run, record")
        for table in TABLES:
            setup.execute(table.format(key="INTEGER PRIMARY KEY"))
        with setup.cursor() as cursor:
            cursor.executemany("INSERT INTO run VALUES (%s, 'running', 0)", [(n,) for n in range(runs)])
    batches = [range(n, min(n + together, runs)) for n in range(0, runs, together)]

    def work(mine: list[range]) -> None:
        with psycopg.connect(url) as connection:
            for batch in mine:
                for step in range(STEPS + 1):
                    with connection.transaction(), connection.cursor() as cursor:
                        if step:
                            ended = [(RESULT, n, step - 1) for n in batch]
                            cursor.executemany(END.replace("?", "%s"), ended)
                        if step < STEPS:
                            cursor.executemany(BEGIN.replace("?", "%s"), [(n, step) for n in batch])
                        cursor.executemany(MOVE.replace("?", "%s"), [(step, n) for n in batch])

    begin = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, [batches[n::connections] for n in range(connections)]))
    return runs / (time.monotonic() - begin)


def sqlite(file: Path, *, runs: int, together: int) -> float:
    """Runs a second on SQLite with synchronous FULL, `together` in one commit."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for table in TABLES:
        connection.execute(table.format(key="INTEGER PRIMARY KEY"))
    connection.executemany("INSERT INTO run VALUES (?, 'running', 0)", [(n,) for n in range(runs)])
    begin = time.monotonic()
    for first in range(0, runs, together):
        batch = range(first, min(first + together, runs))
        for step in range(STEPS + 1):
            connection.execute("BEGIN IMMEDIATE")
            if step:
                connection.executemany(END, [(RESULT, n, step - 1) for n in batch])
            if step < STEPS:
                connection.executemany(BEGIN, [(n, step) for n in batch])
            connection.executemany(MOVE, [(step, n) for n in batch])
            connection.execute("COMMIT")
    seconds = time.monotonic() - begin
    connection.close()
    return runs / seconds
