"""One worker of a federation, for the benchmarks."""

from collections.abc import Callable
from typing import cast

from setting import LEARNING_RATE, SEED, load_model, read_examples, split

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients, LocalWork, Tier
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.link import Link
from scaling_fl.federation.rounds import Plan, Watch, run_rounds
from scaling_fl.federation.server import Server
from scaling_fl.learning.tasks.classification.scoring import loss
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.server_optimisers import sgd


class Worker:
    """One worker of a federation, made of the runner's own parts, less evaluation and records.

    The texts make ``num_steps`` batches in all, and every round is one epoch over them.
    """

    def __init__(
        self,
        model: str,
        kind: str,
        *,
        num_steps: int,
        batch_size: int = 16,
        max_seq_len: int = 64,
        optimiser: str = "adamw",
        exchange: Exchange | None = None,
    ) -> None:
        self.exchange = exchange or SingleExchange(1)
        total = num_steps * batch_size
        self.examples = read_examples(kind, total, model=model, max_seq_len=max_seq_len)
        assert len(self.examples) == total, f"{kind} texts are fewer than {total}"
        self.trainer = LocalTrainer(
            load_model(model, kind=kind, max_seq_len=max_seq_len), loss, optimiser=optimiser
        )
        self._start = self.trainer.vector.clone()
        self._server = Server(self.exchange, sgd(1.0), self.trainer.vector, min_clients=1)
        self._batch_size = batch_size

    def round(
        self,
        num_clients: int,
        *,
        length_grouped: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> RoundReport:
        """Run round 1 from the start, so that every call does the same work.

        ``check`` is called before every step.
        """
        reports: list[RoundReport] = []
        run_rounds(
            GlobalState(self._start.clone()),
            _one_round(num_clients),
            clients=self._clients(num_clients, length_grouped),
            server=self._server,
            evaluate=cast(Evaluator, lambda vector, exchange: {}),
            exchange=self.exchange,
            watch=Watch(
                record=lambda state, report: reports.append(report),
                progress=lambda *_: None,
                check=check,
            ),
        )
        return reports[0]

    def _clients(self, num_clients: int, length_grouped: bool) -> Clients:
        work = LocalWork(
            batch_size=self._batch_size,
            num_epochs=1,
            num_steps=None,
            length_grouped=length_grouped,
        )
        return Clients(
            self.trainer,
            self.examples,
            split(self.examples.labels, num_clients),
            tiers=[Tier(work=work, link=Link())],
            tier_of=[0] * num_clients,
            seed=SEED,
        )


def _one_round(num_clients: int) -> Plan:
    return Plan(
        num_rounds=1,
        num_clients=num_clients,
        cohort=lambda number: list(range(num_clients)),
        shares=lambda cohort: dict.fromkeys(cohort, 1 / len(cohort)),
        learning_rate=lambda number: LEARNING_RATE,
        eval_every=1,
    )
