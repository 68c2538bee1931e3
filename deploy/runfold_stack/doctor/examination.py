"""Run all checks, each after those it depends on; a check that cannot run does not stop others."""

from collections.abc import Generator, Iterator
from datetime import date

import psycopg
import redis

from runfold.protocol import streams
from runfold_stack.processes.ports import answers
from runfold_stack.processes.up_lock import find_up
from runfold_stack.servers.local_stack import find_database_url, find_redis_url
from runfold_stack.settings import Settings
from runfold_storage.checkpoints.positions import count_shards, load_positions
from runfold_storage.checkpoints.streams import read_lags
from runfold_storage.errors import DatabaseUnreachable
from runfold_storage.postgres.connections import connect

from . import Finding, fail, ok, postgres_checks, redis_checks, warn
from .spool_checks import check_spool


def examine(settings: Settings, today: date, *, acknowledge: bool = False) -> Iterator[Finding]:
    """Yield each finding as soon as it is known; `acknowledge`: mark incidents as acknowledged."""
    client = yield from _reach_redis(settings)
    connection = yield from _reach_database(settings)
    try:
        if connection is not None:
            yield postgres_checks.check_partitions(connection, today)
        if client is not None and connection is not None:
            yield from _compare(client, connection, settings)
        if connection is not None:
            yield from postgres_checks.check_incidents(connection, acknowledge_them=acknowledge)
            yield postgres_checks.check_dead_letters(connection)
            yield from postgres_checks.check_jobs(connection)
            yield postgres_checks.check_search(connection)
    except (redis.RedisError, psycopg.Error) as error:
        remedy = "run it again; if the error remains, check the server's log"
        yield fail("servers", f"a connection failed during the checks: {error}", remedy)
    finally:
        if client is not None:
            client.close()
        if connection is not None:
            connection.close()
    if settings.spool_dir is not None:
        url = settings.redis_url or find_redis_url(settings.home)
        yield from check_spool(settings.spool_dir, url, settings.spool_bytes)
    yield from _check_up(settings)


def _reach_redis(settings: Settings) -> Generator[Finding, None, redis.Redis | None]:
    url = settings.redis_url or find_redis_url(settings.home)
    if url is None:
        yield fail("redis", *_missing(settings, "RUNFOLD_REDIS_URL"))
        return None
    client = streams.connect(url)
    try:
        yield from redis_checks.check_server(client)
    except (redis.RedisError, OSError) as error:
        client.close()
        yield fail("redis", str(error), "check RUNFOLD_REDIS_URL and that the server runs")
        return None
    return client


def _reach_database(settings: Settings) -> Generator[Finding, None, psycopg.Connection | None]:
    url = settings.database_url or find_database_url(settings.home)
    if url is None:
        yield fail("postgresql", *_missing(settings, "RUNFOLD_DATABASE_URL"))
        return None
    try:
        connection = connect(url, autocommit=True)
        yield postgres_checks.check_server(connection)
        schema = postgres_checks.check_revision(url)
    except (DatabaseUnreachable, psycopg.Error) as error:
        remedy = "check RUNFOLD_DATABASE_URL and that the server runs"
        yield fail("postgresql", " ".join(str(error).split()), remedy)
        return None
    yield schema
    if schema.level != "ok":
        connection.close()
        return None
    return connection


def _compare(
    client: redis.Redis, connection: psycopg.Connection, settings: Settings
) -> Iterator[Finding]:
    known = count_shards(connection)
    # Not `agree_on_shards`: a check must not choose the number of shards.
    agreed = streams.agreed_shards(client)
    yield redis_checks.check_shards(agreed, settings.shards, known)
    if agreed or known:
        _, lags = read_lags(client, lambda: load_positions(connection), agreed or 0)
        yield from redis_checks.check_lags(lags, settings.max_lag_s)
        yield redis_checks.check_leases(connection, agreed or known)


def _check_up(settings: Settings) -> Iterator[Finding]:
    """Check API and metrics of the `runfold up` on this data directory, if one runs."""
    state = find_up(settings.home)
    if state is None or state.api_url is None:
        return
    see = "see the messages of `runfold up`"
    if answers(f"{state.api_url}/readyz"):
        yield ok("api", f"ready at {state.api_url}")
    else:
        yield fail("api", f"not ready at {state.api_url}", see)
    for url in state.metrics_urls:
        if answers(url):
            yield ok("metrics", f"served at {url}")
        else:
            yield warn("metrics", f"no answer at {url}", see)


def _missing(settings: Settings, variable: str) -> tuple[str, str]:
    return f"none runs in {settings.home}", f"start it with `runfold up`, or set {variable}"
