"""Run ids in paths, whatever they are made of."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runfold_api.web.run_paths import decode_run, split_run_path


@given(st.text(min_size=1, max_size=50))
def test_encoded_ids_come_back(run: str) -> None:
    """An id that is encoded whole is that id, with and without a part behind it."""
    run = run.encode("utf-8", "replace").decode()
    encoded = quote(run, safe="")
    assert split_run_path(encoded) == (encoded, None)
    assert split_run_path(f"{encoded}/events") == (encoded, "events")
    assert decode_run(encoded) == run


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("a/b", ("a/b", None)),
        ("a/b/events", ("a/b", "events")),
        ("a//b", ("a//b", None)),
        ("a/", ("a", None)),
        ("a/events/", ("a", "events")),
        ("events", ("events", None)),
        ("events/events", ("events", "events")),
        ("a%2Fevents", ("a%2Fevents", None)),
        ("", None),
        ("/", None),
    ],
)
def test_slashes(rest: str, expected: object) -> None:
    """Plain slashes belong to the id, up to a last segment that names a part of the run."""
    assert split_run_path(rest) == expected
