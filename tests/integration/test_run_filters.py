"""Every filter of a list of runs, alone and together, against a plain search in Python."""

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from folded_events import START, fold_events, index_all, make_event
from runfold_storage.errors import BadParameter
from runfold_storage.history import History
from runfold_storage.queries.runs.planner import DEFAULT_LIMITS, ListLimits
from runfold_storage.read_models.summaries import RunSummary

AFTER, BEFORE = START + timedelta(hours=1), START + timedelta(hours=3)

Matches = Callable[[RunSummary], bool]


def error_type(run: RunSummary) -> str | None:
    return run.error.type if run.error else None


def started(run: RunSummary) -> datetime:
    return run.started_at or datetime.max.replace(tzinfo=START.tzinfo)


HOUR_MS = 3_600_000
"""Beyond 32 bits in microseconds, like $5 in nano-dollars."""

CHOICES: dict[str, list[tuple[Any, Matches]]] = {
    "project": [("p", lambda run: run.project == "p"), ("none", lambda run: False)],
    "workflow": [("x", lambda run: run.workflow == "x")],
    "status": [
        ("failed", lambda run: run.status == "failed"),
        (["failed", "cancelled"], lambda run: run.status in ("failed", "cancelled")),
        (["queued", "running"], lambda run: run.status in ("queued", "running")),
        (["completed", "lost"], lambda run: run.status == "completed"),
    ],
    "trigger": [("manual", lambda run: run.trigger_type == "manual")],
    "user": [("ann", lambda run: run.user == "ann")],
    "session": [("s-1", lambda run: run.session == "s-1")],
    "tag": [
        ("env:prod", lambda run: run.tags.get("env") == "prod"),
        (["env=prod", "n=3"], lambda run: run.tags == {"env": "prod", "n": "3"}),
        ("aws:region=eu:1", lambda run: run.tags.get("aws:region") == "eu:1"),
    ],
    "started_after": [(AFTER, lambda run: run.started_at is not None and started(run) >= AFTER)],
    "started_before": [(BEFORE, lambda run: started(run) < BEFORE)],
    "min_duration_ms": [
        (30_000, lambda run: (run.duration_ms or 0) >= 30_000),
        (60_000, lambda run: (run.duration_ms or 0) >= 60_000),
        (HOUR_MS, lambda run: (run.duration_ms or 0) >= HOUR_MS),
    ],
    "max_duration_ms": [
        (90_000, lambda run: run.duration_ms is not None and run.duration_ms <= 90_000),
        (HOUR_MS, lambda run: run.duration_ms is not None and run.duration_ms <= HOUR_MS),
    ],
    "min_cost_usd": [
        (0.05, lambda run: run.usage.cost_usd >= 0.05),
        (0.1, lambda run: run.usage.cost_usd >= 0.1),
        (5, lambda run: run.usage.cost_usd >= 5),
    ],
    "max_cost_usd": [
        (0.1, lambda run: run.usage.cost_usd <= 0.1),
        (5, lambda run: run.usage.cost_usd <= 5),
    ],
    "parent_run": [("run-001", lambda run: run.parent_run == "run-001")],
    "error_type": [("Timeout", lambda run: error_type(run) == "Timeout")],
    "q": [
        ("TIMEOUT", lambda run: error_type(run) == "Timeout"),
        ("run-01", lambda run: run.id.startswith("run-01")),
        ("env:prod", lambda run: run.tags.get("env") == "prod"),
        ("prod", lambda run: run.tags.get("env") == "prod"),
        ("100%", lambda run: False),
    ],
}


def made_up(chance: random.Random, number: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a random run; some start hours after they were queued."""
    run, second = f"run-{number:03}", chance.randrange(4 * 3600)
    yield make_event(
        "queued",
        run,
        second,
        project=chance.choice("pq"),
        workflow=chance.choice("xyz"),
        trigger={"type": chance.choice(["manual", "schedule"])},
        user=chance.choice(["ann", "bob"]),
        parent_run=chance.choice([None, "run-001", "run-002"]),
        session=f"s-{chance.randrange(9)}",
        tags=chance.choice([{}, {"env": "prod"}, {"env": "prod", "n": 3}, {"aws:region": "eu:1"}]),
    )
    begin = second + chance.choice([0, 60, 2 * 3600])
    end = chance.choice(["completed", "failed", "cancelled", None, None])
    if end is not None or chance.random() < 0.5:
        yield make_event("started", run, begin)
    if end is not None:
        fields: dict[str, Any] = {}
        if end != "cancelled":
            fields["usage"] = {"cost_usd": chance.choice([0, 0.05, 0.1, 2, 7])}
        if end == "failed":
            fields["error"] = {"type": chance.choice(["Timeout", "ValueError"])}
        yield make_event(end, run, begin + chance.choice([1, 30, 60, 100, 5000]), **fields)


# Lower bounds, so that few runs exercise every branch of the planner.
LIMITS = {
    "default": DEFAULT_LIMITS,
    "tiny": ListLimits(
        first_examined=5,
        examined=40,
        probed=4,
        counted=10,
        sampled=10,
        sampled_for_tags=10,
        sampled_for_text=3,
        tagged=30,
    ),
    "indexed": ListLimits(sampled_for_text=3, common_text=1),
}


def everything(history: History) -> list[RunSummary]:
    """Return all runs, newest first."""
    found, cursor = [], None
    while True:
        page = history.runs(limit=500, cursor=cursor)
        found += page.runs
        cursor = page.next_cursor
        if cursor is None:
            return found


def is_impossible(chosen: dict[str, tuple[Any, Matches]], of: str) -> bool:
    """Return whether a minimum exceeds its maximum, which is an error."""
    least, most = chosen.get(f"min_{of}"), chosen.get(f"max_{of}")
    return least is not None and most is not None and least[0] > most[0]


@pytest.mark.parametrize("bounds", LIMITS)
def test_combinations_agree_with_a_plain_search(migrated_url: str, bounds: str) -> None:
    """The pages of any combination contain the matching runs, each once, in order."""
    chance = random.Random(7)
    fold_events(migrated_url, [one for n in range(100) for one in made_up(chance, n)])
    index_all(migrated_url)
    fold_events(migrated_url, [one for n in range(100, 150) for one in made_up(chance, n)])
    with History(migrated_url, list_limits=LIMITS[bounds]) as history:
        runs = everything(history)
        assert len(runs) == 150
        wanted: list[dict[str, tuple[Any, Matches]]] = [
            {name: choice} for name, choices in CHOICES.items() for choice in choices
        ]
        for _ in range(60):
            names = chance.sample(list(CHOICES), chance.choice([2, 2, 3, 4]))
            chosen = {name: chance.choice(CHOICES[name]) for name in names}
            if not any(is_impossible(chosen, of) for of in ("duration_ms", "cost_usd")):
                wanted.append(chosen)
        for choices in wanted:
            filters = {name: value for name, (value, _) in choices.items()}
            expected = [run.id for run in runs if all(match(run) for _, match in choices.values())]
            found, cursor, limit = [], None, chance.choice([1, 7, 500])
            while True:
                page = history.runs(**filters, limit=limit, cursor=cursor)
                if page.total.relation == "exact":
                    assert page.total.value == len(expected), filters
                assert bounds == "tiny" or page.total.relation == "exact"
                found += [run.id for run in page.runs]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert found == expected, filters


@pytest.mark.parametrize("bounds", LIMITS)
def test_back_again(migrated_url: str, bounds: str) -> None:
    """`prev_cursor` leads through the same runs towards the newest, and ends there."""
    chance = random.Random(8)
    fold_events(migrated_url, [one for n in range(90) for one in made_up(chance, n)])
    index_all(migrated_url)
    for filters in (
        {},
        {"user": "ann"},
        {"status": ["failed", "cancelled"]},
        {"tag": "env=prod"},
        {"q": "env:prod"},
    ):
        with History(migrated_url, list_limits=LIMITS[bounds]) as history:
            there: list[str] = []
            page = history.runs(**filters, limit=7)
            assert page.prev_cursor is None
            there += [run.id for run in page.runs]
            while page.next_cursor is not None:
                page = history.runs(**filters, limit=7, cursor=page.next_cursor)
                there += [run.id for run in page.runs]
                assert page.prev_cursor is not None
            back: list[str] = [run.id for run in page.runs][::-1]
            while page.prev_cursor is not None:
                page = history.runs(**filters, limit=7, cursor=page.prev_cursor)
                back += [run.id for run in page.runs][::-1]
        assert back == there[::-1], filters
        assert len(set(there)) == len(there) > 7


def test_newer_runs_by_the_first_page_again(migrated_url: str) -> None:
    """Going back from a second page includes runs that have arrived since."""
    fold_events(migrated_url, [make_event("started", f"run-{n}", n) for n in range(4)])
    with History(migrated_url) as history:
        second = history.runs(limit=2, cursor=history.runs(limit=2).next_cursor)
        fold_events(migrated_url, [make_event("started", "run-new", 9)])
        newer = history.runs(limit=5, cursor=second.prev_cursor)
    assert [run.id for run in newer.runs] == ["run-new", "run-3", "run-2"]
    assert newer.prev_cursor is None
    assert newer.next_cursor is not None


@pytest.mark.parametrize(
    ("filters", "parameter"),
    [
        ({"tag": "env"}, "tag"),
        ({"tag": ":v"}, "tag"),
        ({"tag": "a:\0"}, "tag"),
        ({"tag": ["a:1", "a:2"]}, "tag"),
        ({"tag": [f"k{n}:v" for n in range(30)]}, "tag"),
        ({"min_duration_ms": -1}, "min_duration_ms"),
        ({"min_duration_ms": float("nan")}, "min_duration_ms"),
        ({"max_cost_usd": float("inf")}, "max_cost_usd"),
        ({"min_cost_usd": 2, "max_cost_usd": 1}, "max_cost_usd"),
        ({"user": ""}, "user"),
        ({"session": "s" * 201}, "session"),
        ({"error_type": "\ud800"}, "error_type"),
        ({"trigger": "\0"}, "trigger"),
    ],
)
def test_invalid_filters(filters: dict[str, Any], parameter: str) -> None:
    """The error names the parameter, and no connection is made."""
    with History("postgresql:///nowhere") as history, pytest.raises(BadParameter) as caught:
        history.runs(**filters)
    assert caught.value.parameter == parameter


def test_broken_and_foreign_cursors(migrated_url: str) -> None:
    """A changed or foreign cursor raises `BadParameter`, never another error."""
    chance = random.Random(9)
    fold_events(migrated_url, [one for n in range(9) for one in made_up(chance, n)])
    fold_events(migrated_url, [make_event("started", "two", 0), make_event("completed", "two", 1)])
    with History(migrated_url) as history:
        page = history.runs(limit=2)
        middle = history.runs(limit=2, cursor=page.next_cursor)
        events = history.events("two", limit=1)
        foreign = [history.workflows(limit=1).next_cursor, events and events.next_cursor]
        foreign.append(history.runs(limit=2, user="ann").next_cursor)
        assert None not in foreign
        broken = [str(cursor) for cursor in foreign] + ["", "=", "a", "%", "\0", "é", "x" * 5000]
        for cursor in (str(middle.next_cursor), str(middle.prev_cursor)):
            broken += [cursor[:length] for length in range(len(cursor))]
            for place in range(len(cursor)):
                other = chance.choice("ABCxyz019-_'; ")
                if other != cursor[place] and place < len(cursor) - 1:
                    broken.append(cursor[:place] + other + cursor[place + 1 :])
        for cursor in broken:
            with pytest.raises(BadParameter) as caught:
                history.runs(limit=2, cursor=cursor)
            assert caught.value.parameter == "cursor"
