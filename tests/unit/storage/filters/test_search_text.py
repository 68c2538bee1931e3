"""Search texts: as LIKE patterns, and whether a trigram index can answer them."""

import pytest

from runfold_storage.filters.search_text import has_trigram, pattern_of, selective_part


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("abc", "%abc%"), ("100%", r"%100\%%"), ("a_b", r"%a\_b%"), ("a\\b", r"%a\\b%")],
)
def test_everything_is_meant_literally(text: str, pattern: str) -> None:
    """The special characters of LIKE are escaped."""
    assert pattern_of(text) == pattern


def test_the_selective_part_of_a_uuid_is_its_end() -> None:
    """Any other text is selective as a whole."""
    assert selective_part("01a1fd76-3c4d-78dd-A6EE-f812f3a8a4ab") == "f812f3a8a4ab"
    more = "run 01a1fd76-3c4d-78dd-a6ee-f812f3a8a4ab"
    assert selective_part(more) == more


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("abc", True),
        ("x-12 a7b", True),
        ("größe", True),
        ("ab", False),
        ("ab-cd ef", False),
        ("---", False),
        ("", False),
    ],
)
def test_trigrams_are_of_letters_and_digits(text: str, has: bool) -> None:
    """A trigram needs three letters or digits in a row."""
    assert has_trigram(text) is has
