"""A model hub that accepts a connection and never answers, and one that must not be asked."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import answers
from scaling_fl.learning.models import hub
from scaling_fl.learning.models.loading import load_tokenizer
from tests.silent_server import silent_server


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with silent_server() as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hub, "answers", partial(answers, seconds=0.2))
        hub.hub_answers.cache_clear()
        yield address
        hub.hub_answers.cache_clear()


def test_a_hub_that_never_answers_is_asked_once(silent_hub: str, tmp_path: Path) -> None:
    began = time.monotonic()
    expected = f"model=someone/bert must be downloaded once, and the model hub {silent_hub} did not"
    for _ in range(2):
        with pytest.raises(UserError, match=expected) as caught:
            load_tokenizer("someone/bert", tmp_path)
        assert str(caught.value).endswith("HF_ENDPOINT, or name a local folder.")
    assert time.monotonic() - began < 60  # not for every file of a model


def test_a_hub_that_must_not_be_asked_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.hub_answers.cache_clear()
    with pytest.raises(UserError, match="because HF_HUB_OFFLINE is set, and was not; unset it"):
        load_tokenizer("someone/bert", tmp_path)
