"""Which values must not leave the process."""

import logging

import pytest

from runfold.serialization.redaction import REDACTED, Redactor


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "passwd",
        "db_password",
        "dbPassword",
        "DB-PASSWORD",
        "password2",
        "passwords",
        "password_hash",
        "token",
        "accessToken",
        "access_token",
        "access_tokens",
        "csrftoken",
        "X-Auth-Token",
        "secret",
        "client_secret",
        "clientsecret",
        "SECRETS",
        "AWS_SECRET_ACCESS_KEY",
        "authorization",
        "Proxy-Authorization",
        "api_key",
        "apikey",
        "apiKey",
        "APIKey",
        "X-Api-Key",
        "x api key",
        "openai.api.key",
        "cookie",
        "Set-Cookie",
        "cookies",
        "private_key",
        "privateKeyPem",
        "credential",
        "credentials",
        "user_credentials",
        "session_token",
    ],
)
def test_sensitive_keys_are_hidden(key: str) -> None:
    """In any spelling or compound of the key, its value is masked."""
    assert Redactor().apply(key, "value") is REDACTED


@pytest.mark.parametrize(
    "key",
    [
        "input_tokens",
        "output_tokens",
        "max_tokens",
        "total_tokens",
        "tokens",
        "tokenizer",
        "author",
        "secretary",
        "key",
        "keyboard",
        "monkey",
        "passenger",
        "compass",
        "session",
        "",
        "_",
        "漢字",
    ],
)
def test_harmless_keys_are_not_hidden(key: str) -> None:
    """Counts of tokens and words that only look alike are recorded."""
    assert Redactor().apply(key, "value") == "value"


@pytest.mark.parametrize("key", ["token_count", "max_token", "tokenLimit", "token_usage"])
def test_counts_of_a_token_are_recorded_but_texts_are_not(key: str) -> None:
    """A number under such a key is a count, a text may be the token itself."""
    assert Redactor().apply(key, 5) == 5
    assert Redactor().apply(key, "sk-123") is REDACTED


@pytest.mark.parametrize("value", [None, True, False])
def test_nothing_and_flags_are_no_secrets(value: object) -> None:
    """Whether a password was given may be seen."""
    assert Redactor().apply("password", value) is value


@pytest.mark.parametrize("value", ["", 5, 1.5, ["a"], {"a": 1}, b"x"])
def test_every_other_value_is_masked_whole(value: object) -> None:
    """A secret of any shape is masked, not walked into."""
    assert Redactor().apply("credentials", value) is REDACTED


def test_keys_can_be_added_and_taken_away() -> None:
    """The list is a setting; the rules for compounds hold for added keys too."""
    redactor = Redactor(["iban", "-cookie", "Card Number"])
    assert redactor.apply("customerIban", "x") is REDACTED
    assert redactor.apply("card_number", "x") is REDACTED
    assert redactor.apply("cookie", "x") == "x"
    assert redactor.apply("password", "x") is REDACTED


def test_the_built_in_keys_can_be_taken_away_together() -> None:
    """`-*` leaves only what is listed beside it."""
    redactor = Redactor(["-*", "iban"])
    assert redactor.apply("password", "x") == "x"
    assert redactor.apply("iban", "x") is REDACTED


def test_a_callable_decides_about_the_rest() -> None:
    """It sees what the list lets through, and its answer is recorded."""
    seen = []

    def redact(key: str, value: object) -> object:
        seen.append(key)
        return "xx" if key == "email" else value

    redactor = Redactor(redact=redact)
    assert redactor.apply("email", "a@b") == "xx"
    assert redactor.apply("size", 5) == 5
    assert redactor.apply("password", "x") is REDACTED
    assert seen == ["email", "size"]


def test_a_failing_callable_hides_the_value(caplog: pytest.LogCaptureFixture) -> None:
    """An error in the callable neither raises nor leaks, and is logged once."""

    def redact(key: str, value: object) -> object:
        raise ValueError(value)

    redactor = Redactor(redact=redact)
    with caplog.at_level(logging.ERROR, "runfold"):
        assert redactor.apply("a", "hunter2") is REDACTED
        assert redactor.apply_to_text("message", "hunter2") is REDACTED
    assert len(caplog.records) == 1
    assert "hunter2" not in caplog.text


def test_a_callable_that_turns_a_text_into_something_else_hides_it() -> None:
    """A message has to stay a text."""
    assert Redactor(redact=lambda key, value: 5).apply_to_text("message", "x") is REDACTED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Client(host='h', password='a b')", "Client(host='h', password=[redacted])"),
        ('{"token": "abc", "n": 1}', '{"token": [redacted], "n": 1}'),
        ("<Conn api_key=abc123>", "<Conn api_key=[redacted]>"),
        ("Usage(token_count=5, max_tokens=7)", "Usage(token_count=5, max_tokens=7)"),
        ("a = b", "a = b"),
    ],
)
def test_reprs_are_scrubbed(text: str, expected: str) -> None:
    """An unknown object's `repr` does not give its secrets away."""
    assert Redactor().scrub(text) == expected


def test_many_different_keys_stay_bounded() -> None:
    """Keys that are data do not fill the memory, and are still judged."""
    redactor = Redactor()
    for n in range(25_000):
        assert redactor.apply(f"user{n}", 1) == 1
    assert len(redactor.unmasked_keys) <= 10_000
    assert redactor.apply("user1_password", 1) is REDACTED
