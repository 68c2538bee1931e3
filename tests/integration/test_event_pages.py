"""The events of a run, page by page, forwards and backwards."""

from typing import Any

import pytest

from folded_events import events_of, fold_events, make_event
from runfold.protocol.ids import make_run_id
from runfold_storage.errors import BadParameter
from runfold_storage.history import History


def back(history: History, run: str, **filters: Any) -> list[list[int]]:
    """Return the ids of a run's events on each page, from the last page to the first."""
    found = []
    page = history.events(run, tail=True, **filters)
    while page is not None:
        found.append([item["id"] for item in events_of(page)])
        if page.prev_cursor is None:
            break
        page = history.events(run, before=page.prev_cursor, **filters)
    return found


def test_events_as_they_were_sent(migrated_url: str) -> None:
    """The ledger's view has every event with its envelope, in the order of the fold."""
    run = "own/id"
    sent = [
        make_event("started", run, 1, workflow="w", extra={"kept": 1.0}),
        make_event("queued", run, 0),
        make_event("logged", run, 2, text="hello", node="a", stream="stdout"),
        make_event("completed", run, 3),
    ]
    fold_events(migrated_url, [{**item, "id": n} for n, item in enumerate(sent)])
    with History(migrated_url) as history:
        page = history.events(run)
    assert page is not None
    assert page.next_cursor is None
    assert bytes(page.events[1]) == (
        b'{"type":"started","run":"own/id","id":0,"at":"2026-11-20T10:00:01.000000Z","v":1,'
        b'"workflow":"w","extra":{"kept":1.0}}'
    )
    assert [item["type"] for item in events_of(page)] == [
        "queued",
        "started",
        "logged",
        "completed",
    ]


def test_event_pages(migrated_url: str) -> None:
    """Cursors lead through a run's events once; types narrow them."""
    run = make_run_id()
    lines = [make_event("logged", run, n // 3, text=str(n), id=n) for n in range(50)]
    fold_events(migrated_url, [*lines, make_event("completed", run, 99, id=99)])
    with History(migrated_url) as history:
        found: list[int] = []
        after = None
        while True:
            page = history.events(run, after=after, limit=8)
            assert page is not None
            found += [item["id"] for item in events_of(page)]
            after = page.next_cursor
            if after is None:
                break
        assert found == [*range(50), 99]
        assert [item["id"] for item in events_of(history.events(run, types="completed"))] == [99]
        with pytest.raises(BadParameter, match="types: expected one of"):
            history.events(run, types=["nonsense"])
        with pytest.raises(BadParameter, match="after: "):
            history.events(run, after="nonsense")


def test_large_events_make_short_pages(migrated_url: str) -> None:
    """A page of large events ends early, and the next one continues."""
    run = make_run_id()
    text = "x" * 900_000
    fold_events(migrated_url, [make_event("logged", run, n, text=text, id=n) for n in range(12)])
    with History(migrated_url) as history:
        first = history.events(run, limit=1000)
        assert first is not None
        assert 8 <= len(first.events) < 12
        second = history.events(run, limit=1000, after=first.next_cursor)
        assert second is not None
        assert len(first.events) + len(second.events) == 12
        assert second.next_cursor is None


def test_pages_from_the_end(migrated_url: str) -> None:
    """The last page first, each in the order of the fold, until the first event."""
    run = make_run_id()
    lines = [make_event("logged", run, n // 3, text=str(n), id=n) for n in range(20)]
    fold_events(migrated_url, [*lines, make_event("completed", run, 99, id=99)])
    with History(migrated_url) as history:
        pages = back(history, run, limit=8)
        assert pages == [[*range(13, 20), 99], [*range(5, 13)], [*range(5)]]
        assert back(history, run, limit=7, types="logged")[0] == [*range(13, 20)]
        whole = history.events(run, tail=True)
        assert whole is not None
        assert (whole.next_cursor, whole.prev_cursor) == (None, None)


def test_from_any_page_in_both_directions(migrated_url: str) -> None:
    """The pages before and after a page follow without gaps or repetitions."""
    run = make_run_id()
    fold_events(migrated_url, [make_event("logged", run, n, text=str(n), id=n) for n in range(9)])
    with History(migrated_url) as history:
        first = history.events(run, limit=3)
        assert first is not None
        assert first.prev_cursor is None
        middle = history.events(run, limit=3, after=first.next_cursor)
        assert middle is not None
        assert [item["id"] for item in events_of(middle)] == [3, 4, 5]
        before = history.events(run, limit=3, before=middle.prev_cursor)
        assert before is not None
        assert [item["id"] for item in events_of(before)] == [0, 1, 2]
        behind = history.events(run, limit=3, after=before.next_cursor)
        assert [item["id"] for item in events_of(behind)] == [3, 4, 5]
        last = history.events(run, limit=3, after=middle.next_cursor)
        assert last is not None
        assert last.next_cursor is None


def test_one_place_to_read_from(migrated_url: str) -> None:
    """Two starting points are an error, and a cursor serves only its own direction."""
    run = make_run_id()
    fold_events(migrated_url, [make_event("logged", run, n, text=str(n), id=n) for n in range(9)])
    with History(migrated_url) as history:
        page = history.events(run, limit=3)
        assert page is not None
        cursor = page.next_cursor
        for places in ({"after": cursor, "tail": True}, {"after": cursor, "before": cursor}):
            with pytest.raises(BadParameter, match="give at most one of"):
                history.events(run, **places)
        with pytest.raises(BadParameter, match="before: "):
            history.events(run, before=cursor)


def test_large_events_make_short_pages_from_the_end(migrated_url: str) -> None:
    """Backwards, too, a page ends early, and the next one continues."""
    run = make_run_id()
    text = "x" * 900_000
    fold_events(migrated_url, [make_event("logged", run, n, text=text, id=n) for n in range(12)])
    with History(migrated_url) as history:
        pages = back(history, run, limit=1000)
    assert len(pages) == 2
    assert pages[1] + pages[0] == [*range(12)]
    assert len(pages[0]) >= 8


def test_logs_of_a_node(migrated_url: str) -> None:
    """Logs are found by node, over as many pages as it takes."""
    run = make_run_id()
    lines = [
        make_event("logged", run, n, text=str(n), id=n, **({"node": "rare"} if n % 40 == 0 else {}))
        for n in range(200)
    ]
    fold_events(migrated_url, [*lines, make_event("started", run, 0, id=500)])
    with History(migrated_url) as history:
        assert len(events_of(history.logs(run, limit=1000))) == 200
        found: list[str] = []
        after = None
        while True:
            page = history.logs(run, node="rare", limit=3, after=after)
            found += [item["text"] for item in events_of(page)]
            assert page is not None
            after = page.next_cursor
            if after is None:
                break
        assert found == ["0", "40", "80", "120", "160"]
        page = history.logs(run, node="rare", limit=4, tail=True)
        assert [item["text"] for item in events_of(page)] == ["120", "160"]


def test_events_of_a_node(migrated_url: str) -> None:
    """All events that name it, and none that name another."""
    run = make_run_id()
    fold_events(
        migrated_url,
        [
            make_event("started", run, 0, nodes=[{"node": "a"}]),
            make_event("node_started", run, 1, node="a"),
            make_event("node_started", run, 1.5, node="b"),
            make_event("logged", run, 2, node="a", text="x"),
            make_event("node_finished", run, 3, node="a"),
            make_event("failed", run, 4, error={"message": "no", "node": "a"}),
        ],
    )
    with History(migrated_url) as history:
        found = events_of(history.events(run, node="a"))
        assert [item["type"] for item in found] == ["node_started", "logged", "node_finished"]
        assert [item["text"] for item in events_of(history.logs(run, node="a", tail=True))] == ["x"]
