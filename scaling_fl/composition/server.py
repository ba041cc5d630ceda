"""Configuration -> the server: its merge, its optimiser, and the sum of control variates."""

from functools import partial

from scaling_fl.composition.merge import make_merge
from scaling_fl.config import Config
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.linears import linears_of
from scaling_fl.federation.client import Clients
from scaling_fl.federation.privacy import Privacy
from scaling_fl.federation.remote import RemoteClients
from scaling_fl.federation.scaffold import Controls
from scaling_fl.federation.server import Server
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.methods.server_optimisers import SERVER_OPTIMISERS, ServerOptimiser, scheduled
from scaling_fl.methods.weighting import WEIGHTINGS


def make_server(
    config: Config,
    trainer: LocalTrainer,
    clients: Clients,
    exchange: Exchange,
    privacy: Privacy | None = None,
) -> Server:
    """Make the server of all ``clients``; its scratch buffer is the trainer's vector.

    Raises:
        UserError: a function of the user cannot be found.
    """
    return Server(
        exchange,
        make_merge(config),
        make_server_optimiser(config),
        trainer.vector,
        links=[tier.link for tier in clients.tiers],
        min_clients=config.min_clients,
        privacy=privacy,
        seed=config.seed,
        layout=trainer.layout,
        linears=linears_of(trainer.model),
        controls=_make_controls(config, trainer, clients, exchange),
        sealed=clients.sealed if isinstance(clients, RemoteClients) else None,
    )


def make_server_optimiser(config: Config) -> ServerOptimiser:
    """Make the optimiser that ``server.optimiser`` names, with its options and its schedule."""
    server = config.server
    make = partial(SERVER_OPTIMISERS[server.optimiser], **server.options)
    if server.schedule == "constant":
        return make(server.learning_rate)
    rate = SCHEDULES[server.schedule](
        server.learning_rate, server.final_learning_rate, config.num_rounds
    )
    return scheduled(make, rate)


def _make_controls(
    config: Config, trainer: LocalTrainer, clients: Clients, exchange: Exchange
) -> Controls | None:
    """Make the sum of SCAFFOLD's control variates; None: the run has none.

    Who can never take part has none either, and would draw their mean towards 0.
    """
    if not config.scaffold:
        return None
    everyone = config.participants(len(clients.tier_of))
    weights = WEIGHTINGS[config.weighting]([clients.num_examples(client) for client in everyone])
    shares = dict(zip(everyone, weights, strict=True))
    return Controls(exchange, trainer.layout.size, trainer.vector.device, shares)
