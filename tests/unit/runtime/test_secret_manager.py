"""Variables that refer to Secret Manager get their values, or one sentence says why not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.runtime import secret_manager
from scaling_fl.runtime.secret_manager import SecretUnavailable, resolve_secrets
from tests.secret_server import Handler, Server, secret_server

REFERENCE = "sm://projects/p/secrets/mongo/versions/latest"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def server() -> Iterator[Server]:
    with secret_server() as found:
        yield found


def environ(server: Server, **variables: str) -> dict[str, str]:
    return {"SECRET_MANAGER_ENDPOINT": server.endpoint, "OTHER": "plain"} | variables


def test_references_are_replaced_and_nothing_else(server: Server) -> None:
    other = "sm://projects/7/secrets/b_B-1/versions/3"
    server.keep(REFERENCE, b"mongodb://u:p@h/d")
    server.keep(other, "sesame é\n".encode())
    found = resolve_secrets(environ(server, SACRED_MONGO_URI=REFERENCE, B_TOKEN=other))
    assert found == {"SACRED_MONGO_URI": "mongodb://u:p@h/d", "B_TOKEN": "sesame é\n"}
    assert server.asked[0] == "/v1/projects/p/secrets/mongo/versions/latest:access"


def test_without_references_nothing_is_asked_or_imported() -> None:
    code = (
        "import sys\nfrom scaling_fl.runtime.secret_manager import resolve_secrets\n"
        "assert resolve_secrets({'A': 'b', 'C': 'not sm://'}) == {}\n"
        "assert not {'google.auth', 'requests'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "reference",
    [
        "sm://mongo",
        "sm://projects/p/secrets/mongo",
        "sm://projects/p/secrets/mongo/versions/1:access",
        "sm://projects/p/secrets/../versions/1?x",
    ],
)
def test_a_reference_must_be_whole(server: Server, reference: str) -> None:
    with pytest.raises(SecretUnavailable, match=r"^A must be sm://projects/PROJECT/secrets/NAME"):
        resolve_secrets(environ(server, A=reference))
    assert server.asked == []


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (403, "give its service account the role roles/secretmanager.secretAccessor"),
        (404, "correct the project, the name or the version"),
        (500, "try again later"),
    ],
)
def test_a_refusal_is_one_sentence(server: Server, code: int, remedy: str) -> None:
    path = "/v1/projects/p/secrets/mongo/versions/latest:access"
    server.answers[path] = (code, b"a long\npage")
    with pytest.raises(SecretUnavailable) as caught:
        resolve_secrets(environ(server, A=REFERENCE))
    text = str(caught.value)
    assert text.startswith("A refers to projects/p/secrets/mongo/versions/latest, but http://127.")
    assert f"answered {code} (" in text
    assert text.endswith(f"{remedy}.")
    assert "\n" not in text


@pytest.mark.parametrize("data", [b"\xff\xfe sesame", b"sesame\0"])
def test_a_secret_that_is_no_text_is_refused_and_not_shown(server: Server, data: bytes) -> None:
    server.keep(REFERENCE, data)
    with pytest.raises(SecretUnavailable, match="which must hold text") as caught:
        resolve_secrets(environ(server, A=REFERENCE))
    assert "sesame" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no json", b'{"payload": {"data": "&&&"}}'])
def test_an_answer_of_another_kind_is_refused(server: Server, body: bytes) -> None:
    server.answers["/v1/projects/p/secrets/mongo/versions/latest:access"] = (200, body)
    with pytest.raises(SecretUnavailable, match="which must hold text"):
        resolve_secrets(environ(server, A=REFERENCE))


def test_a_server_that_is_away_is_one_sentence(server: Server) -> None:
    given = {"SECRET_MANAGER_ENDPOINT": "http://127.0.0.1:9", "A": REFERENCE}
    with pytest.raises(SecretUnavailable, match=r"did not answer \(ConnectionError\)") as caught:
        resolve_secrets(given)
    assert "\n" not in str(caught.value)


def test_a_server_that_stalls_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_manager, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda handler: threading.Event().wait(1.0))
    with pytest.raises(SecretUnavailable, match=r"did not answer \(.*Timeout\)"):
        resolve_secrets(environ(server, A=REFERENCE))


def test_without_credentials_it_says_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(SecretUnavailable, match="needs Google's credentials, but there are none"):
        resolve_secrets({"A": REFERENCE})
