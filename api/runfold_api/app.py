"""The application: its routes, error handlers and long-lived objects."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide

from runfold.serialization.intake import Intake
from runfold_api.ingest.stream_writer import StreamWriter
from runfold_api.live.broker import Broker
from runfold_api.live.run_subscriptions import RunTopics
from runfold_api.openapi import RawSchemaPlugin, openapi_config
from runfold_api.routes.metrics import Application, Deployment, RequestMetrics
from runfold_api.web.problems import handlers
from runfold_api.web.query_params import provide_history, run_filters
from runfold_api.web.query_validation import check_query
from runfold_storage.admin import Admin
from runfold_storage.history import History

from .routes import admin, health, ingest, live, static_files
from .routes import history as history_routes
from .settings import Settings


def create_app(settings: Settings) -> Litestar:
    """Return an ASGI application that opens no connection before the first request.

    A server calls `state.broker.end()` before it waits for requests, as streams do not end.
    """
    history = History(
        settings.database_url,
        pool_size=settings.read_threads,
        timeout_s=settings.read_timeout_s,
        archive_url=settings.archive_url,
    )
    administration = Admin(
        settings.database_url, at_once=settings.delete_at_once, archive_url=settings.archive_url
    )
    writer = StreamWriter(
        settings.redis_url,
        shards=settings.shards,
        threads=settings.write_threads,
        timeout_s=settings.write_timeout_s,
    )

    intake = Intake(settings.redact_keys, settings.max_future_s)
    broker = Broker(history, settings.redis_url)
    streams = live.Live(broker, RunTopics(broker, history), history)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        # As many threads as connections, so that no read holds one while it waits for the other.
        threads = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="runfold-read")
        asyncio.get_running_loop().set_default_executor(threads)
        try:
            yield
        finally:
            writer.close()
            history.close()

    api = Router(
        "/api/v1",
        route_handlers=[*history_routes.ROUTES, *live.ROUTES, *ingest.ROUTES, *admin.ROUTES],
        before_request=check_query,
        dependencies={
            "history": Provide(provide_history(history, settings.max_wait_s)),
            "filters": Provide(run_filters, sync_to_thread=False),
        },
    )
    request_metrics = RequestMetrics(broker, Deployment(history, writer))
    return Application(
        state=State({"broker": broker}),
        metrics=request_metrics,
        route_handlers=[api, *health.ROUTES, *static_files.ROUTES],
        dependencies={
            "history": Provide(lambda: history, sync_to_thread=False),
            "live": Provide(lambda: streams, sync_to_thread=False),
            "administration": Provide(lambda: administration, sync_to_thread=False),
            "writer": Provide(lambda: writer, sync_to_thread=False),
            "intake": Provide(lambda: intake, sync_to_thread=False),
            "settings": Provide(lambda: settings, sync_to_thread=False),
            "request_metrics": Provide(lambda: request_metrics, sync_to_thread=False),
        },
        exception_handlers=handlers(),
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=openapi_config(),
        plugins=[RawSchemaPlugin()],
        request_max_body_size=settings.max_body_bytes,
    )
