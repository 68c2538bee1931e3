"""Databases of an embedded PostgreSQL: tests make and drop their own."""

import psycopg
from psycopg import sql

from runfold_stack.servers.postgres_server import PostgresServer


def create_database(server: PostgresServer, name: str, *, template: str = "template1") -> str:
    """Create a copy of `template`, which must have no open connection; return its URL."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _administer(server, statement.format(sql.Identifier(name), sql.Identifier(template)))
    return server.url_for(name)


def drop_database(server: PostgresServer, name: str) -> None:
    """Drop a database and close all connections to it."""
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    _administer(server, statement.format(sql.Identifier(name)))


def _administer(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.url_for("postgres"), autocommit=True) as connection:
        connection.execute(statement)
