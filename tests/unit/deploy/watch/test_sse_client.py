"""The events of a stream, as the standard defines them."""

from runfold_stack.watch.sse_client import parse


def test_events_are_read_as_the_standard_says() -> None:
    """Comments are no events; an id alone moves the id on; data may have several lines."""
    stream = (
        b": keep-alive\nid: 7\n\nretry: 1000\n\nid: 8\nevent: changed\ndata: {}\n\n"
        b"data:1\r\ndata: 2\r\n\r\nevent: cut off\ndata: {"
    )

    assert list(parse(iter(stream.splitlines(keepends=True)))) == [
        ("", b"", "7"),
        ("changed", b"{}", "8"),
        ("message", b"1\n2", None),
    ]
