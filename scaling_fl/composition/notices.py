"""What is told of a round at once, because a run in which nothing moves is a run for nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from scaling_fl.config.merges import row_of
from scaling_fl.core.records import RoundReport
from scaling_fl.federation.evaluator import MISSING

_SHOWN = 5


class Notices:
    """Warnings of this start, each of them given once.

    They follow from the global state and from the clients of a report: of a private job, a report
    has no clients.
    """

    def __init__(self, config: Mapping[str, Any], learning_rate: Callable[[int], float]) -> None:
        self._config, self._learning_rate = config, learning_rate
        self._told: set[object] = set()
        self._keeps_parts = bool(row_of(config["merge"]["method"]).personal)
        self._trained: set[int] = set()

    def of(self, report: RoundReport) -> list[str]:
        """Return what is to be told of a round; empty when everything moves as it should."""
        missing = _of_evaluation(report)
        if self._learning_rate(report.round) == 0:  # as in the last round of a linear schedule
            return missing
        able = self._able(report)
        found = [self._of_clients(report, able), self._of_state(report, able)]
        return missing + [text for text in found if text]

    def _able(self, report: RoundReport) -> set[int]:
        """Return the clients that can move what they send.

        Where clients keep B, a step of the first turn moves B alone: while B is 0, A, which they
        send, has no gradient.
        """
        clients = {each.client for each in report.clients}
        able = clients & self._trained if self._keeps_parts else clients
        self._trained |= {each.client for each in report.clients if each.failure is None}
        return able

    def _of_clients(self, report: RoundReport, able: set[int]) -> str:
        still = [
            each.client
            for each in report.clients
            if each.update_norm == 0 and each.failure is None and each.num_examples
            if each.client in able
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

    def _of_state(self, report: RoundReport, able: set[int]) -> str:
        if not report.unmoved or report.unmoved in self._told or (report.clients and not able):
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


def _of_evaluation(report: RoundReport) -> list[str]:
    missing = int(report.metrics.get(MISSING, 0))
    clients = f"{missing} client{'s' * (missing != 1)}"
    text = f"round {report.round} has no validation metrics, because the nodes of {clients} did "
    return [f"{text}not answer for their test examples; their logs say why."] if missing else []
