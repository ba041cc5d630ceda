"""What is told of a round at once, because a run in which nothing moves is a run for nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from scaling_fl.core.records import RoundReport

_SHOWN = 5


class Notices:
    """Warnings of this start, each of them given once.

    They follow from the global state and from the clients of a report: of a private job, a report
    has no clients.
    """

    def __init__(self, config: Mapping[str, Any], learning_rate: Callable[[int], float]) -> None:
        self._config, self._learning_rate = config, learning_rate
        self._told: set[object] = set()

    def of(self, report: RoundReport) -> list[str]:
        """Return what is to be told of a round; empty when everything moves as it should."""
        if self._learning_rate(report.round) == 0:  # as in the last round of a linear schedule
            return []
        found = [self._of_clients(report), self._of_state(report)]
        return [text for text in found if text]

    def _of_clients(self, report: RoundReport) -> str:
        still = [
            each.client
            for each in report.clients
            if each.update_norm == 0 and each.failure is None and each.num_examples
        ]
        new = [client for client in still if client not in self._told]
        self._told.update(new)
        if not new:
            return ""
        listed = ", ".join(map(str, new[:_SHOWN])) + ", ..." * (len(new) > _SHOWN)
        who = f"client{'s' * (len(new) > 1)} {listed}"
        return (
            f"round {report.round}: the update of {who} is exactly zero, so nothing was learned "
            f"there; {self._remedy()}."
        )

    def _of_state(self, report: RoundReport) -> str:
        if not report.unmoved or report.unmoved in self._told:
            return ""
        self._told.add(report.unmoved)
        return (
            f"round {report.round} has not moved {report.unmoved}: not one value changed, and what "
            f"does not move does not learn; {self._remedy()}."
        )

    def _remedy(self) -> str:
        rate, optimiser = self._config["learning_rate"], self._config["optimiser"]
        targets = " and adapter.targets" if self._config["adapter"]["kind"] != "none" else ""
        return (
            f"check learning_rate ({rate:g} with optimiser={optimiser}), server.learning_rate"
            f"{targets}"
        )
