"""The settings that end a run before its last round."""

import re
from typing import Annotated, get_args

from pydantic import AfterValidator

from scaling_fl.config.base import Section
from scaling_fl.config.conditions import WithSet
from scaling_fl.config.types import (
    Choices,
    Count,
    NonNegative,
    NumBytes,
    Positive,
    WatchedMetric,
)

_OF_QUESTIONS = re.compile(r"validation\.[^.]+\.accuracy(_norm)?")
_WATCHED = WithSet(".metric", because="it is about a metric")


def _watched(name: str) -> str:
    names = get_args(WatchedMetric)
    if name in names or _OF_QUESTIONS.fullmatch(name):
        return name
    raise ValueError(
        f"must be one of {', '.join(names)}, or validation.NAME.accuracy of a file of questions"
    )


class StopSettings(Section):
    """What ends a run before its last round; whichever comes first."""

    metric: Annotated[
        Annotated[str, AfterValidator(_watched), Choices(*get_args(WatchedMetric))] | None,
        WithSet(".target", ".patience", because="it ends nothing by itself"),
    ] = None
    """Metric that target and patience are about; also validation.NAME.accuracy of a file of
    questions. A loss and a perplexity are better when they are lower."""
    target: Annotated[float | None, _WATCHED] = None
    """The run ends when a score is at least this, or a loss at most this."""
    patience: Annotated[Count | None, _WATCHED] = None
    """The run ends when so many evaluations, one after the other, are no better than the best one
    before them."""
    min_gain: Annotated[NonNegative, WithSet(".patience")] = 0.0
    """A metric is better when it gains more than this."""
    bytes: NumBytes | None = None
    """The run ends before a round would take it above so many bytes, both ways and all clients
    together."""
    seconds: Positive | None = None
    """The run ends after the round with which its rounds have taken so many seconds."""
    epsilon: Annotated[
        Positive | None,
        WithSet(
            "privacy.noise_multiplier",
            "privacy.target_epsilon",
            because="epsilon is infinite otherwise",
        ),
    ] = None
    """The run ends before a round would take it above this epsilon."""

    @property
    def is_of_training(self) -> bool:
        """Say whether the metric is one that clients report of their training."""
        return self.metric is not None and self.metric.startswith("train.")

    @property
    def is_of_loss(self) -> bool:
        return self.metric is not None and self.metric.endswith((".loss", ".perplexity"))
