"""Live streams over real Redis and PostgreSQL."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest
import redis

from conditions import wait_until
from event_histories import NOON_US
from folded_events import make_event
from oracle import project
from posted_events import post_events
from runfold.protocol.streams import changes_channel
from runfold_storage.change_feed.notifications import encode_notification
from runfold_storage.change_feed.reader import decode_feed_cursor
from runfold_storage.checkpoints import change_log
from runfold_storage.records.rows import Batch, PositionUpdate, RunRow
from service_threads import run_api, run_api_and_worker
from sse_client import SseClient, SseEvent, open_event_stream

LIVE = "/api/v1/live"


@pytest.fixture
def api(redis_url: str, migrated_url: str) -> Iterator[httpx.Client]:
    """A server and a worker over an empty database."""
    with run_api_and_worker(redis_url, migrated_url) as client:
        yield client


def has(name: str, number: int = 1) -> Any:
    """Return a condition: at least `number` events of this name have arrived."""
    return lambda events: sum(each.event == name for each in events) >= number


def listed(client: httpx.Client, query: str = "") -> dict[str, Any]:
    """Return the runs of the list by id."""
    page = client.get(f"/api/v1/runs?limit=500{query}").json()
    return {run["id"]: run for run in page["runs"]}


def seen(events: list[SseEvent]) -> dict[str, Any]:
    """Return the runs that a client shows after these events, by id."""
    page: dict[str, Any] = {}
    for name, data, _ in events:
        if name == "snapshot":
            page = {run["id"]: run for run in data["runs"]}
        elif name == "changed":
            page[data["id"]] = data
        else:
            page.pop(data["id"], None)
    return page


def test_a_list_stream_starts_with_a_snapshot_and_continues_with_changes(api: httpx.Client) -> None:
    """A change carries the same summary that the list shows."""
    post_events(api, make_event("started", "before", 0, workflow="w"))
    with open_event_stream(api, LIVE) as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        page = listener.events[0].data
        assert [run["id"] for run in page["runs"]] == ["before"]
        assert page["total"] == {"value": 1, "relation": "exact"}
        post_events(api, make_event("started", "after", 1, workflow="w", tags={"a": "b"}))
        listener.wait(has("changed"), what="the new run")
        post_events(api, make_event("completed", "after", 2))
        listener.wait(has("changed", 2), what="its end")
    assert [run["status"] for run in listener.named("changed")] == ["running", "completed"]
    assert listener.named("changed")[-1] == listed(api)["after"]


def test_a_filtered_stream_reports_runs_that_start_and_stop_matching(api: httpx.Client) -> None:
    """Changes of other runs are not sent."""
    with open_event_stream(api, f"{LIVE}?status=running&project=acme") as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        post_events(api, make_event("started", "other", 0, workflow="w", project="labs"))
        post_events(api, make_event("started", "mine", 0, workflow="w", project="acme"))
        post_events(api, make_event("completed", "other", 1))
        post_events(api, make_event("completed", "mine", 1))
        listener.wait(has("removed"), what="its leaving")
        post_events(api, make_event("annotated", "mine", 2, tags={"a": "b"}))
        post_events(api, make_event("started", "last", 3, workflow="w", project="acme"))
        listener.wait(has("changed", 2), what="the last run")
    assert [(each.event, each.data["id"]) for each in listener.events[1:]] == [
        ("changed", "mine"),
        ("removed", "mine"),
        ("changed", "last"),
    ]


def test_a_client_of_another_server_is_sent_removals_too(
    api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """The new server cannot know whether the client shows the run, so it sends the removal."""
    post_events(api, make_event("started", "a", 0, workflow="w"))
    with open_event_stream(api, f"{LIVE}?status=running") as listener:
        listener.wait(has("snapshot"), what="the snapshot")
    with (
        run_api(redis_url, migrated_url) as other,
        open_event_stream(other, f"{LIVE}?status=running", listener.last_id) as again,
    ):
        wait_until(lambda: again.status == 200, what="the stream")
        post_events(api, make_event("completed", "a", 1))
        again.wait(has("removed"), what="its leaving")
        assert again.named("removed") == [{"id": "a"}]


def test_a_client_that_reconnects_gets_missed_changes_and_none_twice(
    api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """Its last id is enough, also for another server."""
    with open_event_stream(api, LIVE) as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        post_events(
            api,
            make_event("started", "a", 0, workflow="w"),
            make_event("started", "b", 0, workflow="w"),
        )
        listener.wait(has("changed", 2), what="two runs")
    post_events(api, make_event("completed", "a", 1), make_event("started", "c", 1, workflow="w"))
    with (
        run_api(redis_url, migrated_url) as other,
        open_event_stream(other, LIVE, listener.last_id) as again,
    ):
        again.wait(has("changed", 2), what="what was missed")
        post_events(api, make_event("completed", "b", 2))
        again.wait(has("changed", 3), what="what follows")
        received = sorted((run["id"], run["status"]) for run in again.named("changed"))
        assert received == [("a", "completed"), ("b", "completed"), ("c", "running")]
        assert not again.named("snapshot")
        with open_event_stream(other, LIVE, again.last_id) as third:
            post_events(api, make_event("completed", "c", 3))
            third.wait(has("changed"), what="the last change")
            assert [run["id"] for run in third.named("changed")] == ["c"]


def test_each_event_can_be_the_last(api: httpx.Client) -> None:
    """After a break at any event, its id leads to exactly the later events."""
    with open_event_stream(api, LIVE) as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        post_events(
            api, *(make_event("started", f"run {number}", 0, workflow="w") for number in range(20))
        )
        listener.wait(has("changed", 20), what="all runs")
    changed = listener.events[1:]
    for index in range(0, 20, 3):
        with open_event_stream(api, LIVE, changed[index].id) as again:
            rest = {each.data["id"] for each in changed[index + 1 :]}
            again.wait(has("changed", len(rest)), what="the rest")
            assert {run["id"] for run in again.named("changed")} == rest
            assert len(again.events) == len(rest)


def test_removals_during_a_break_are_sent_on_reconnect(api: httpx.Client) -> None:
    """The server does not have to remember what the client shows."""
    with open_event_stream(api, f"{LIVE}?status=running") as listener:
        post_events(api, make_event("started", "a", 0, workflow="w"))
        listener.wait(lambda events: "a" in seen(events), what="the run")
    post_events(api, make_event("completed", "a", 1))
    with open_event_stream(api, f"{LIVE}?status=running", listener.last_id) as again:
        again.wait(has("removed"), what="its leaving")
    assert again.named("removed") == [{"id": "a"}]


@pytest.mark.parametrize(
    "last_id", ["0.0.0.0.0.0.0.0", "99.0.0.0.0.0.0.0", "1.2", "x", "é", "9" * 99]
)
def test_a_client_that_was_away_too_long_gets_a_snapshot(
    api: httpx.Client, database: psycopg.Connection, last_id: str
) -> None:
    """So does a client with the id of another database or an invalid one."""
    post_events(
        api, *(make_event("started", f"run {number}", 0, workflow="w") for number in range(20))
    )
    database.execute("DELETE FROM changes")
    with httpx.Client(timeout=30) as client:
        url = api.base_url.join(LIVE)
        headers = {b"last-event-id": last_id.encode()}
        with client.stream("GET", url, headers=headers) as response:
            lines = response.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: snapshot"


def test_old_changes_are_forgotten(api: httpx.Client, database: psycopg.Connection) -> None:
    """Newer changes are kept."""
    post_events(api, make_event("started", "old", 0, workflow="w"))
    database.execute(
        "UPDATE changes SET changed_at = now() - make_interval(mins => %s)",
        (change_log.KEPT_MINUTES + 1,),
    )
    post_events(api, make_event("started", "young", 0, workflow="w"))
    change_log.delete_old_changes(database)
    assert database.execute("SELECT count(*) FROM changes").fetchone() == (1,)


def test_a_lost_wake_up_only_delays(
    api: httpx.Client, redis_url: str, database: psycopg.Connection
) -> None:
    """A change whose notification was lost is read from PostgreSQL."""
    with open_event_stream(api, LIVE) as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        with redis.Redis.from_url(redis_url) as client:
            killed = client.client_kill_filter(_type="pubsub")
            assert killed
        post_events(api, make_event("started", "a", 0, workflow="w"))
        listener.wait(has("changed"), what="the change")


def test_a_notification_is_sent_before_the_database_is_read(
    api: httpx.Client, redis_url: str, migrated_url: str
) -> None:
    """The database is still read within a second, and overrides the notification."""
    with open_event_stream(api, LIVE) as listener, redis.Redis.from_url(redis_url) as client:
        listener.wait(has("snapshot"), what="the snapshot")
        cursor = decode_feed_cursor(listener.last_id)
        assert cursor is not None
        ghost = a_run("ghost", shards=len(cursor))
        last = cursor[ghost.shard] + 1
        step = PositionUpdate(ghost.shard, "0-0", 0, "1-0", 1, last, None)
        batch = Batch(advances=[step], new_runs=[(ghost, last)])
        message = encode_notification(batch, with_runs=True)
        channel = changes_channel(client)
        wait_until(lambda: client.publish(channel, message) > 0, what="a subscription")
        listener.wait(has("changed"), what="the notified run")
        assert listener.named("changed")[0]["id"] == "ghost"
        listener.wait(has("snapshot", 2), what="a read of the database")
        assert seen(listener.events) == {}
        post_events(api, make_event("started", "real", 0, workflow="w"))
        listener.wait(has("changed", 2), what="a real run")
        assert seen(listener.events) == listed(api)


def test_another_database_of_the_same_redis_is_another_deployment(
    api: httpx.Client, redis_url: str
) -> None:
    """Redis channels span its databases, so the channel's name includes the database."""
    with (
        redis.Redis.from_url(redis_url) as ours,
        redis.Redis.from_url(redis_url.replace("db=0", "db=9")) as theirs,
    ):
        assert changes_channel(ours) != changes_channel(theirs)
        with open_event_stream(api, LIVE):
            is_received = partial(ours.publish, changes_channel(ours), b"")
            wait_until(is_received, what="a subscription")
            assert theirs.publish(changes_channel(theirs), b"") == 0


def a_run(run: str, shards: int) -> RunRow:
    [row] = project(
        [{"type": "started", "run": run, "id": 0, "at_us": NOON_US, "workflow": "w"}], shards
    ).runs.values()
    return row


def test_filters_that_need_postgresql_beside_others(api: httpx.Client) -> None:
    """Both kinds of filters get the same events of the same runs."""
    with (
        open_event_stream(api, f"{LIVE}?q=needle") as texts_of,
        open_event_stream(api, f"{LIVE}?workflow=needle") as of_workflow,
    ):
        for listener in (texts_of, of_workflow):
            listener.wait(has("snapshot"), what="the snapshot")
        for number in range(3):
            post_events(
                api, make_event("started", f"run {number}", 0, workflow="needle", project="p")
            )
            post_events(api, make_event("started", f"other {number}", 0, workflow="hay"))
            for listener in (texts_of, of_workflow):
                listener.wait(has("changed", number + 1), what="the run")
        assert texts_of.named("changed") == of_workflow.named("changed")
        assert seen(texts_of.events) == listed(api, "&workflow=needle")


def test_a_deletion_is_sent(api: httpx.Client) -> None:
    """Streams of lists and of the run itself get its id."""
    post_events(api, make_event("started", "mine", 0, workflow="w"))
    with (
        open_event_stream(api, LIVE) as of_all,
        open_event_stream(api, "/api/v1/runs/mine/live") as of_one,
    ):
        of_all.wait(has("snapshot"), what="the list")
        of_one.wait(has("snapshot"), what="the run")
        assert api.delete("/api/v1/runs/mine").status_code == 204
        of_all.wait(has("deleted"), what="the deletion")
        of_one.wait(has("deleted"), what="the deletion")
        assert of_all.named("deleted") == of_one.named("deleted") == [{"id": "mine"}]
        wait_until(of_one.ended.is_set, what="the end of its stream")


def test_the_stream_of_a_run_has_its_nodes_and_output(api: httpx.Client) -> None:
    """The events add up to what REST returns."""
    run = "report/7"
    plan = [{"node": "n"}, {"node": "m", "parents": ["n"]}]
    post_events(api, make_event("started", run, 0, workflow="w", nodes=plan))
    post_events(api, make_event("logged", run, 0.5, text="early"))
    with open_event_stream(api, "/api/v1/runs/report%2F7/live") as listener:
        listener.wait(has("snapshot"), what="the snapshot")
        post_events(api, make_event("node_started", run, 1, node="n"))
        post_events(api, make_event("logged", run, 1.5, node="n", text="line"))
        listener.wait(has("logged"), what="output")
        post_events(
            api, make_event("node_finished", run, 2, node="n"), make_event("completed", run, 3)
        )
        listener.wait(lambda _: statuses(listener)[-1:] == ["completed"], what="its end")
    first = listener.events[0].data
    assert first["run"]["id"] == run
    assert [node["status"] for node in first["nodes"]] == ["pending", "pending"]
    assert texts(first["output"]) == ["early"]
    assert [texts(data["events"]) for data in listener.named("logged")] == [["line"]]
    nodes = [node for data in listener.named("nodes") for node in data["nodes"]]
    assert {node["node"]: node["status"] for node in nodes} == {"n": "completed"}
    assert listener.named("changed")[-1] == listed(api)[run]


def statuses(listener: SseClient) -> list[str]:
    return [run["status"] for run in listener.named("changed")]


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [each["text"] for each in events]


def test_late_output_that_changes_no_row_is_sent(api: httpx.Client) -> None:
    """Lines of a slow clock do not change the run's row, but are sent."""
    run = "behind"
    post_events(
        api,
        make_event("logged", run, 1, text="first"),
        make_event("started", run, 60, workflow="w"),
    )
    with open_event_stream(api, f"/api/v1/runs/{run}/live") as listener:
        listener.wait(has("snapshot"), what="a snapshot")
        post_events(api, make_event("logged", run, 2, text="second"))
        listener.wait(has("logged"), what="output")
    assert [texts(data["events"]) for data in listener.named("logged")] == [["second"]]


def test_a_run_that_has_not_changed_needs_no_snapshot_again(api: httpx.Client) -> None:
    """A changed run is sent again."""
    post_events(api, make_event("started", "a", 0, workflow="w"))
    with open_event_stream(api, "/api/v1/runs/a/live") as listener:
        listener.wait(has("snapshot"), what="the snapshot")
    with open_event_stream(api, "/api/v1/runs/a/live", listener.last_id) as again:
        wait_until(lambda: again.status == 200, what="the stream")
        post_events(api, make_event("completed", "a", 1))
        again.wait(has("changed"), what="the change")
        assert not again.named("snapshot")
    with open_event_stream(api, "/api/v1/runs/a/live", listener.last_id) as late:
        late.wait(has("snapshot"), what="the snapshot")
        assert late.events[0].data["run"]["status"] == "completed"


def test_problems_are_reported_before_a_stream_starts(api: httpx.Client) -> None:
    """Errors have the same form as those of other routes."""
    assert api.get("/api/v1/runs/nobody/live").status_code == 404
    answer = api.get(f"{LIVE}?status=done")
    assert (answer.status_code, answer.json()["parameter"]) == (400, "status")
    assert api.get(f"{LIVE}?cursor=x").status_code == 400


def test_a_client_that_leaves_leaves_no_state(api: httpx.Client) -> None:
    """The metric counts streams of lists and of runs."""

    def streams() -> str:
        lines = api.get("/metrics").text.splitlines()
        return next(line for line in lines if line.startswith("runfold_api_watchers "))

    post_events(api, make_event("started", "a", 0, workflow="w"))
    with (
        open_event_stream(api, LIVE) as one,
        open_event_stream(api, f"{LIVE}?project=x") as two,
        open_event_stream(api, "/api/v1/runs/a/live") as three,
    ):
        for listener in (one, two, three):
            listener.wait(has("snapshot"), what="the snapshot")
        assert streams() == "runfold_api_watchers 3.0"
    post_events(api, make_event("completed", "a", 1))
    wait_until(lambda: streams() == "runfold_api_watchers 0.0", what="the end of all streams")


def test_streams_end_when_the_server_stops(
    redis_url: str, migrated_url: str, database: psycopg.Connection
) -> None:
    """The responses end completely, so that clients reconnect to another process."""
    with run_api(redis_url, migrated_url, shutdown_s=600) as client:
        listener = SseClient(str(client.base_url.join(LIVE)))
        listener.wait(has("snapshot"), what="the snapshot")
    assert listener.ended.wait(30)
    assert listener.error is None
