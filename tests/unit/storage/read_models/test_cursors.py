"""Cursors continue where their page ended, and only for their own query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runfold_storage.errors import BadParameter
from runfold_storage.read_models.cursors import decode_cursor, encode_cursor


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_key_comes_back(question: bytes, key: bytes) -> None:
    """Decoding a cursor returns the key that was encoded."""
    assert decode_cursor(question, encode_cursor(question, key)) == key


@given(st.text(max_size=1100))
def test_any_text_is_refused(text: str) -> None:
    """Any other text raises an error that names the parameter, and nothing else."""
    with pytest.raises(BadParameter) as caught:
        decode_cursor(b"runs", text)
    assert caught.value.parameter == "cursor"


def test_cursor_of_another_query() -> None:
    """A cursor of other filters raises an error with a remedy."""
    cursor = encode_cursor(b"failed runs", b"key")
    with pytest.raises(BadParameter, match="belongs to another query"):
        decode_cursor(b"all runs", cursor)


def test_damaged_cursor() -> None:
    """One changed character anywhere makes a cursor useless."""
    cursor = encode_cursor(b"runs", b"0123456789")
    for place in range(len(cursor) - 1):
        changed = "A" if cursor[place] != "A" else "B"
        with pytest.raises(BadParameter):
            decode_cursor(b"runs", cursor[:place] + changed + cursor[place + 1 :])


def test_cursor_of_another_parameter() -> None:
    """The error for a cursor under another parameter names that parameter."""
    cursor = encode_cursor(b"events", b"key", parameter="after")
    with pytest.raises(BadParameter) as caught:
        decode_cursor(b"events", cursor, parameter="cursor")
    assert caught.value.parameter == "cursor"
