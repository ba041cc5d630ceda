"""Composition root of a worker: configuration -> federation.

The modules below ``build`` do not see the configuration; they get plain arguments.
"""

from dataclasses import dataclass
from typing import Any

import torch

from scaling_fl.composition import fingerprint, own
from scaling_fl.composition.agreement import (
    broadcast_state,
    check_same_data,
    check_same_model,
    forget_unused,
)
from scaling_fl.composition.budget import Budget, make_budget
from scaling_fl.composition.clients import make_clients, make_rounds
from scaling_fl.composition.data import Data, count_clients, load_data
from scaling_fl.composition.merge import personal_of_merge
from scaling_fl.composition.model import load_trainer
from scaling_fl.composition.notices import Notices
from scaling_fl.composition.record import Note, make_recorder
from scaling_fl.composition.remote import KnownNodes, Office, check_memory, job_of
from scaling_fl.composition.secrecy import (
    EARLIER_PROMISES,
    Seal,
    make_seal,
    make_secrecy,
    read_begun,
)
from scaling_fl.composition.server import make_server, make_server_optimiser
from scaling_fl.composition.start import load_start
from scaling_fl.composition.stopping import check_metric, make_stopping
from scaling_fl.config import Config, cohort_problems
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.seeding import from_seed
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.rounds import Hooks, Rounds, run_rounds
from scaling_fl.federation.server import Server
from scaling_fl.federation.stopping import Stopping
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.runtime.record.recorder import Recorder
from scaling_fl.runtime.tracking.places import JobPlaces


@dataclass(kw_only=True)
class Federation:
    """This worker's part in a run."""

    state: GlobalState
    """The state that the rounds begin with; ``run`` gives it away."""
    rounds: Rounds
    clients: Clients
    server: Server
    evaluator: Evaluator
    exchange: Exchange
    stopping: Stopping
    recorder: Recorder | None
    notices: Notices

    def run(self, hooks: Hooks) -> GlobalState:
        """Run the rounds and return the last state; all workers call this together, once.

        Before it, nothing is recorded: whatever refuses a start leaves the job as it was.
        """
        stopped_by = ""
        if self.state.round < self.rounds.num_rounds:
            past = self.recorder.past if self.recorder else dict
            stopped_by = self.stopping.resume(self.state, past)
        if self.recorder:
            self.recorder.begin(stopped_by, self.stopping.budgets)
        state = self._give_away_state()
        if stopped_by:
            return state
        return run_rounds(
            state,
            self.rounds,
            clients=self.clients,
            server=self.server,
            evaluate=self.evaluator,
            exchange=self.exchange,
            stopping=self.stopping,
            hooks=hooks,
        )

    def _give_away_state(self) -> GlobalState:
        state = self.state
        del self.state  # so that its vector is freed after the first round
        return state

    def save_unsaved(self) -> None:
        if self.recorder:
            self.recorder.save_unsaved()


def choose_device(wanted: str, device_id: int) -> torch.device:
    """Return the GPU of a site; return the CPU if the machine has no GPU or ``wanted`` is "cpu".

    Raises:
        UserError: this machine does not have the GPU.
    """
    num_gpus = 0 if wanted == "cpu" else torch.cuda.device_count()
    if wanted == "cuda" and num_gpus == 0:
        raise UserError("device=cuda needs a GPU, got none on this machine; set device=cpu.")
    if num_gpus == 0:
        return torch.device("cpu")
    if device_id >= num_gpus:
        raise UserError(
            f"site_ids must name GPUs of this machine, 0 to {num_gpus - 1}, got {device_id}; "
            "change site_ids, or set device=cpu."
        )
    return torch.device("cuda", device_id)


def build(
    config: Config,
    exchange: Exchange,
    device: torch.device,
    job: JobPlaces | None,
    *,
    note: Note,
    stage: Note,
    office: Office | None = None,
) -> Federation:
    """Make the objects of this worker, and start from the latest checkpoint; equal on all workers.

    With an ``office`` the clients are on other machines, and it carries letters to them.

    Raises:
        UserError: the configuration, the data or the checkpoint cannot be used.
    """
    note(_placement_sentence(config, exchange, device))
    num_clients = _number_of_clients(config, office, exchange)
    budget, seal = _promise(config, num_clients, read_begun(config, job, exchange), exchange, note)
    nodes = None
    if office:
        stage("asking the nodes")
        nodes = KnownNodes(config, office, job_of(job, exchange), num_clients)
        if office.is_secure:
            note(nodes.trust())
    is_elsewhere = office is not None and office.owns_data
    data = nodes.data() if nodes and is_elsewhere else load_data(config, num_clients, stage)
    check_same_data(data, exchange)
    for caveat in data.caveats:
        note(caveat)
    trainer = load_trainer(config, data, device, note=note, stage=stage)
    check_metric(config, trainer, data)
    if nodes:
        nodes.check(data, trainer)
    kept_unsealed = _fingerprint_to_keep(config, data, trainer, budget, exchange)
    kept = seal.over(kept_unsealed) if seal else kept_unsealed
    start = load_start(config, trainer, kept, job, exchange)
    data_keys = [data.test.key] if seal else [data.train.key, data.test.key]
    computation = fingerprint.of_computation(config, num_clients, *data_keys)
    computation |= start.fingerprint | own.sources(config)
    if budget and start.fingerprint:
        note("epsilon is that of this job alone, without the epsilon of the state in init_from")
    recorder = None
    if exchange.rank == 0:
        assert job is not None
        recorder = make_recorder(config, trainer, data, job, kept, computation, budget, note)
    weights = fingerprint.of_values(trainer.vector)
    vector = trainer.vector.clone() if start.vector is None else start.vector
    state = broadcast_state(
        GlobalState(vector, make_server_optimiser(config).init(vector)),
        recorder,
        exchange,
        num_threads=torch.get_num_threads(),
        wanted_threads=config.num_threads,
        note=note,
    )
    noise, draws = from_seed(config.seed), None
    if budget and budget.is_noisy:
        facts = [computation, kept_unsealed, data.train.key, weights, budget.scale]
        secrecy = make_secrecy(config, seal, facts, exchange, device)
        noise, draws = secrecy.noise, secrecy.draws
    privacy = budget.privacy(noise, trainer.layout.size) if budget else None
    clients = make_clients(config, trainer, data, privacy, draws)
    check_memory(state, config, is_remote=nodes is not None)
    if nodes:
        clients = nodes.clients(clients, config)
    server = make_server(config, trainer, clients, exchange, privacy)
    rounds = make_rounds(config, clients, trainer.layout, num_clients, budget, draws)
    return Federation(
        state=forget_unused(state, config, is_remote=nodes is not None),
        rounds=rounds,
        notices=Notices(config.model_dump(mode="json"), rounds.learning_rate),
        clients=clients,
        server=server,
        evaluator=make_evaluator(config, trainer, data, nodes),
        exchange=exchange,
        stopping=make_stopping(config, clients, rounds, budget, state, exchange),
        recorder=recorder,
    )


def _number_of_clients(config: Config, office: Office | None, exchange: Exchange) -> int:
    """Count the clients: the nodes, where each has data of its own."""
    owns_data = office is not None and office.owns_data
    num_sites = len(exchange.sites)
    found = office.num_nodes if office and owns_data else count_clients(config, num_sites)
    if problems := cohort_problems(config, found):
        raise InputError("; ".join(str(problem) for problem in problems))
    return found


def _promise(
    config: Config,
    num_clients: int,
    begun: dict[str, Any] | None,
    exchange: Exchange,
    note: Note,
) -> tuple[Budget | None, Seal | None]:
    """Make the budget of privacy, and with noise the seal on what the record must not tell."""
    budget = make_budget(config, num_clients, note, begun=begun)
    if not (budget and budget.is_noisy):
        return budget, None
    seal = make_seal(begun, exchange)
    if seal is None:
        note(EARLIER_PROMISES)
    return budget, seal


def _fingerprint_to_keep(
    config: Config, data: Data, trainer: LocalTrainer, budget: Budget | None, exchange: Exchange
) -> dict[str, Any]:
    """Return the fingerprint that the checkpoints of a job must share."""
    frozen = check_same_model(trainer.model, exchange) if config.adapter.kind != "none" else ""
    of_vector = fingerprint.of_vector(config, data.task.meaning, frozen)
    return of_vector | fingerprint.of_guarantee(
        config,
        len(data.partitions),
        train_key=data.train.key,
        privacy_terms=budget.guarantee if budget else {},
    )


def make_evaluator(
    config: Config, trainer: LocalTrainer, data: Data, nodes: KnownNodes | None = None
) -> Evaluator:
    """Make the evaluator of the test examples and of what else is measured.

    Test examples that clients answer are those of the ``nodes``, where the clients are there.
    """
    personal = personal_of_merge(config, trainer.layout)
    is_elsewhere = nodes is not None and data.test_owners is not None
    return Evaluator(
        trainer,
        data.measured,
        batch_size=config.val_batch_size,
        detailed=config.per_class_metrics,
        owners=data.test_owners,
        personal=personal,
        ask_nodes=nodes.evaluation(data, personal) if nodes and is_elsewhere else None,
    )


def _placement_sentence(config: Config, exchange: Exchange, device: torch.device) -> str:
    what = "GPU" if device.type == "cuda" else "CPU worker"
    plural = "s" * (exchange.size > 1)
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads each"
    missing = "no GPU here: " if device.type == "cpu" and config.device == "auto" else ""
    return (
        f"{missing}{len(exchange.sites)} site{'s' * (len(exchange.sites) > 1)} on {exchange.size} "
        f"{what}{plural}{threads}"
    )
