"""Whatever a runner gives as a name, made to fit."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runfold.serialization.normalize import (
    is_run_id,
    normalize_count,
    normalize_name,
    normalize_names,
    normalize_number,
    normalize_run_id,
    normalize_tag,
    normalize_text,
)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_utf8(text: str) -> None:
    """Lone surrogates are replaced, and valid text is kept."""
    fitted = normalize_text(text)
    fitted.encode()
    if fitted != text:
        assert "\ufffd" in fitted or len(fitted) < len(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("a", "a"),
        (5, "5"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        (Unspeakable(), "[Unspeakable: RuntimeError]"),
    ],
)
def test_names_are_cut_visibly(value: object, expected: str | None) -> None:
    """A name has 1 to 200 characters, and an ellipsis where some are missing."""
    assert normalize_name(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [(None, None), ("a", ["a"]), (["a", "", None, 3], ["a", "3"]), ((), []), (7, ["7"])],
)
def test_several_names_may_come_in_any_shape(values: object, expected: list[str] | None) -> None:
    """One name is a list of one; empty ones are left out."""
    assert normalize_names(values) == expected


@pytest.mark.parametrize("run", ["a", "x" * 200, "é" * 200, UUID(int=5)])
def test_allowed_run_ids_are_kept(run: object) -> None:
    """The caller's own id is stored as given."""
    assert normalize_run_id(run) == str(run)


@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=250))
def test_every_run_id_is_made_to_fit(run: str) -> None:
    """What comes out is allowed, and the same each time."""
    fitted = normalize_run_id(run)
    assert is_run_id(fitted)
    assert normalize_run_id(fitted) == fitted


def test_long_run_ids_stay_apart() -> None:
    """Two ids that differ only at their end are two runs."""
    assert normalize_run_id("x" * 300 + "a") != normalize_run_id("x" * 300 + "b")
    assert normalize_run_id("a\0") != normalize_run_id("a\ufffd")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        ("7", 7),
        (3.9, 3),
        (-1, 0),
        (10**30, 100),
        (float("inf"), 100),
        (float("nan"), None),
        ("many", None),
        (None, None),
        ([], None),
    ],
)
def test_counts_stay_within_bounds(value: object, expected: int | None) -> None:
    """A number is clamped; anything else is left out."""
    assert normalize_count(value, 0, 100) == expected


def test_numbers_keep_their_fraction() -> None:
    """Money is not rounded."""
    assert normalize_number(0.002, 0, 1e6) == 0.002


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (5, 5),
        (0.5, 0.5),
        (float("inf"), "inf"),
        (2**70, str(2**70)),
        (["a"], "['a']"),
        ("x" * 2000, "x" * 999 + "…"),
    ],
)
def test_tags_are_plain_values(value: object, expected: object) -> None:
    """A tag is a text, a number, a flag or nothing."""
    assert normalize_tag(value) == expected
