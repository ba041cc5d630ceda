"""What Flower calls for a run: it finds the nodes, and has the engine train over them."""

import shlex

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from scaling_fl.flower.desk import run_with, training
from scaling_fl.flower.grid_office import GridOffice, Patience
from scaling_fl.flower.secure_office import SecureOffice

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train over the nodes of the grid.

    Raises:
        UserError: not all nodes came.
        RunFailed: the run ended otherwise than at its end.
    """
    given = context.run_config
    patience = Patience(nodes=float(given["wait-seconds"]), round=float(given["round-seconds"]))
    office = GridOffice(grid, patience, lambda: None)
    nodes = SecureOffice(office) if given["secure-sum"] else office
    run_with(nodes, training(shlex.split(str(given["with"]))))
