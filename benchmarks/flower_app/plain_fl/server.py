"""The server: Flower's own FedAvg over all clients; it writes down when each round ended."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from scaling_fl.composition.data import load_data
from scaling_fl.config import read_config

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator, unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """Average for so many rounds."""
    options = context.run_config
    num_clients, ends = int(options["num-clients"]), []
    config = read_config(json.loads(str(options["settings"])))
    data = load_data(config, num_clients, lambda text: None)
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=num_clients, min_available_nodes=num_clients
    )
    arrays = ArrayRecord(data.task.load_model().state_dict())
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(options["num-rounds"]),
        evaluate_fn=lambda number, arrays: ends.append(time.time()),
    )
    losses = [float(found["loss"]) for found in result.train_metrics_clientapp.values()]
    num_bytes = 2 * num_clients * sum(len(array.data) for array in arrays.values())
    Path(str(options["out"])).write_text(
        json.dumps({"ends": ends[1:], "losses": losses, "bytes": num_bytes})
    )
