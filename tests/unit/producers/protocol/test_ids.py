"""Names of runs and events."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runfold.protocol.ids import (
    derive_event_id,
    is_own_id,
    make_emitter,
    make_event_id,
    make_run_id,
    run_key,
)


def test_a_run_id_is_a_uuidv7_of_its_time() -> None:
    """A run id made here carries its milliseconds, the version and the variant."""
    at = datetime(2026, 11, 21, 2, 0, 0, 123_000, tzinfo=UTC)
    made = UUID(make_run_id(int(at.timestamp() * 1_000_000)))
    assert made.int >> 80 == int(at.timestamp() * 1000)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")


def test_run_ids_sort_by_microsecond() -> None:
    """Of two ids made at different microseconds the later one is greater."""
    at_us = 1_790_000_000_000_000
    ids = [make_run_id(at_us + step) for step in range(0, 2000, 50)]
    assert ids == sorted(ids)


def test_run_ids_of_one_moment_differ() -> None:
    """Two runs of the same microsecond do not collide."""
    assert len({make_run_id(1_790_000_000_000_000) for _ in range(1000)}) == 1000


def test_the_key_of_a_made_id_is_the_id() -> None:
    """The ledger partitions by the id itself."""
    run = make_run_id()
    assert run_key(run) == UUID(run)
    assert not is_own_id(run_key(run))


@pytest.mark.parametrize(
    "run",
    [
        "nightly-2026-11-21",
        "00000000-0000-7000-8000-000000000000",
        "01A1FC33-852A-7CBC-90B3-EC2E4F7229D8",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "漢字",
    ],
)
def test_any_other_id_is_kept_as_the_callers_own(run: str) -> None:
    """What is no UUIDv7 of a sane day, or is spelt differently, is hashed out of their range."""
    assert is_own_id(run_key(run))
    assert run_key(run) == run_key(run)


@given(st.text(min_size=1).filter(str.isprintable), st.text(min_size=1).filter(str.isprintable))
def test_different_ids_have_different_keys(one: str, other: str) -> None:
    """The key of a run stands for it alone."""
    assert (run_key(one) == run_key(other)) == (one == other)


def test_an_event_id_names_its_emitter_and_counts() -> None:
    """The upper half is the emitter, the lower half the number."""
    assert make_event_id(0, 7) == 7
    assert divmod(make_event_id(5, 3), 2**32) == (5, 3)


def test_a_joining_emitter_is_never_0_and_fits_into_a_bigint() -> None:
    """0 belongs to the process that opened the run."""
    emitters = {make_emitter() for _ in range(1000)}
    assert min(emitters) > 0
    assert make_event_id(max(emitters), 2**32 - 1) < 2**63


def test_a_derived_event_id_follows_from_the_content() -> None:
    """A retried request is a duplicate; another content is another event."""
    assert derive_event_id(b"{}") == derive_event_id(b"{}") != derive_event_id(b"[]")
    assert 0 <= derive_event_id(b"{}") < 2**63
