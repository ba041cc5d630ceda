"""Configuration -> the server's optimiser."""

from functools import partial

from scaling_fl.config import Config
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.methods.server_optimisers import SERVER_OPTIMISERS, ServerOptimiser, scheduled


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
