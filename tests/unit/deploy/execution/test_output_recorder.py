"""One stream's bytes as texts."""

from runfold_stack.execution.output_recorder import MAX_TEXT_BYTES, OutputRecorder


def make() -> tuple[OutputRecorder, list[str]]:
    """A transcript and the texts that it writes."""
    texts: list[str] = []
    return OutputRecorder(texts.append), texts


def test_nothing_is_written_before_it_is_due() -> None:
    """Lines are collected for a short while."""
    transcript, texts = make()
    transcript.feed(b"one\ntwo\n")
    assert texts == []
    assert transcript.due_in_s() is not None
    transcript.finish()
    assert texts == ["one\ntwo\n"]
    assert transcript.due_in_s() is None


def test_a_long_text_is_cut_at_a_line() -> None:
    """A piece ends where a line does."""
    transcript, texts = make()
    transcript.feed(b"x" * 100 + b"\n" + b"y" * MAX_TEXT_BYTES)
    transcript.finish()
    assert texts[0] == "x" * 100 + "\n"
    assert "".join(texts) == "x" * 100 + "\n" + "y" * MAX_TEXT_BYTES
    assert all(len(text) <= MAX_TEXT_BYTES for text in texts)


def test_a_character_that_is_cut_in_two_survives() -> None:
    """Bytes of one character may come in two pieces, and fall on two texts."""
    transcript, texts = make()
    data = b"x" * (MAX_TEXT_BYTES - 1) + "ü".encode()
    for byte in (data[:-1], data[-1:]):
        transcript.feed(byte)
    transcript.finish()
    assert "".join(texts) == "x" * (MAX_TEXT_BYTES - 1) + "ü"


def test_what_is_no_text_is_visibly_replaced() -> None:
    """Every byte that is not UTF-8 becomes U+FFFD."""
    transcript, texts = make()
    transcript.feed(b"a\xffb\xc3")
    transcript.finish()
    assert texts == ["a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"]


def test_the_last_line_is_known() -> None:
    """Blank lines at the end do not count."""
    transcript, _ = make()
    transcript.feed(b"first\nsecond\n\n  \n")
    transcript.finish()
    assert transcript.last_line == "second"
