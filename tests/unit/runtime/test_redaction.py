"""Secrets are hidden wherever an address or a text is shown."""

import pytest

from scaling_fl.runtime.redaction import redact, redact_uri, secrets_of


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://h:1/db", "mongodb://h:1/db"),
        ("mongodb+srv://ann:s3cret@h/db?tlsCertificateKeyFilePassword=x", "mongodb+srv://h/db"),
        ("mongodb://ann:p@ss/w:rd@h1:1,h2:2/", "mongodb://h1:1,h2:2/"),
        ("ann:s3cret@h:1", "h:1"),
    ],
)
def test_an_address_is_shown_without_its_user(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown


def test_a_text_is_shown_without_the_users_of_its_addresses() -> None:
    text = "see https://tok@git.example/a, s3://k:v@b/c and mongodb://a:b/c@h/d?x=y, not a@b.c"
    hidden = "see https://***@git.example/a, s3://***@b/c and mongodb://h/d not a@b.c"
    assert redact(text) == hidden


def test_short_values_are_not_taken_for_secrets() -> None:
    environ = {"SACRED_PASSWORD": "sacred", "MY_TOKEN": "long enough", "HOME": "/home/somebody"}
    assert set(secrets_of(environ)) == {"long enough", "long%20enough", "long+enough"}


def test_the_password_of_any_address_is_a_secret() -> None:
    environ = {
        "SACRED_MONGO_URI": "mongodb://ann:pass/word1@h/",
        "MLFLOW_TRACKING_URI": "https://ann:pass%2Bword2@h:5000/mlflow",
        "PLAIN": "https://h:5000/mlflow/run@v2",
    }
    found = set(secrets_of(environ))
    assert {"pass/word1", "pass%2Bword2", "pass+word2"} <= found
    assert redact("ran https://h:5000/mlflow/run@v2", found) == "ran https://h:5000/mlflow/run@v2"


def test_hiding_takes_time_in_proportion_to_the_text() -> None:
    # A pattern that looks for the start of an address anywhere took minutes for this one.
    assert redact("x" * 5_000_000) == "x" * 5_000_000
