"""The environment names the database, wholly or not at all, and nothing shows its password."""

import pytest

from scaling_fl.runtime.tracking.mongo_settings import (
    MongoSettings,
    SettingsError,
    failure_sentence,
    settings_from_environment,
)

FOUR = {
    "SACRED_USER": "ann lee",
    "SACRED_PASSWORD": "p@ss/w:rd%",
    "SACRED_HOST": "cluster.example",
    "SACRED_DATABASE": "runs",
}


def test_without_variables_there_is_no_database() -> None:
    assert settings_from_environment({}) is None
    assert settings_from_environment(dict.fromkeys([*FOUR, "SACRED_MONGO_URI"], " ")) is None


def test_the_address_wins_over_the_four() -> None:
    settings = settings_from_environment(FOUR | {"SACRED_MONGO_URI": "mongodb://h:1/mine"})
    assert settings == MongoSettings("mongodb://h:1/mine", "mine")


@pytest.mark.parametrize(
    ("uri", "database", "expected"),
    [
        ("mongodb://h:1/mine?retryWrites=false", "other", "mine"),
        ("mongodb://h:1", "other", "other"),
        ("mongodb://h:1/", "", "sacred"),
    ],
)
def test_the_database_is_in_the_path_or_in_its_variable(
    uri: str, database: str, expected: str
) -> None:
    environ = {"SACRED_MONGO_URI": uri, "SACRED_DATABASE": database}
    settings = settings_from_environment(environ)
    assert settings is not None
    assert settings.database == expected


@pytest.mark.parametrize(
    ("host", "start"),
    [("cluster.example", "mongodb+srv://"), ("127.0.0.1:27017", "mongodb://")],
)
def test_the_four_make_an_address_with_quoted_user_and_password(host: str, start: str) -> None:
    settings = settings_from_environment(FOUR | {"SACRED_HOST": host})
    assert settings == MongoSettings(f"{start}ann+lee:p%40ss%2Fw%3Ard%25@{host}/", "runs")
    assert settings.target == f"{start}{host}/runs"


@pytest.mark.parametrize("missing", [["SACRED_USER"], ["SACRED_PASSWORD", "SACRED_HOST"]])
def test_half_given_settings_name_what_is_missing(missing: list[str]) -> None:
    environ = {name: value for name, value in FOUR.items() if name not in missing}
    with pytest.raises(SettingsError, match=f"but {' and '.join(missing)} (is|are) not set"):
        settings_from_environment(environ)


@pytest.mark.parametrize("uri", ["mongodb://u:pa/s3cret@h/", "http://u:s3cret@h/", "u:s3cret@h"])
def test_an_unusable_address_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(
        SettingsError, match=r"SACRED_MONGO_URI must be percent|must start"
    ) as error:
        settings_from_environment({"SACRED_MONGO_URI": uri})
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("uri", ["mongodb://u:pa/s3cret@h:1/", "mongodb://u:s3cret@h:99999/"])
def test_an_address_that_the_driver_refuses_is_not_shown_either(uri: str) -> None:
    settings = MongoSettings(uri, "runs")
    with pytest.raises(SettingsError) as error:
        settings.connect()
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    for text in (str(error.value), repr(settings), failure_sentence(error.value, settings)):
        assert "s3cret" not in text
