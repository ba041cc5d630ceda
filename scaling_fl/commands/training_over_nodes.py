"""The training command of a run whose clients are on other machines.

usage: python -m scaling_fl.commands.training_over_nodes with SETTING ...

It is started by the process that knows the nodes; see ``scaling_fl/flower/desk.py``.
"""

import sys

from scaling_fl.commands.settings import read_training
from scaling_fl.runtime.machines.office import open_office

if __name__ == "__main__":
    office = open_office()
    checked, code = read_training(__doc__, sys.argv, has_data=not (office and office.owns_data))
    del office
    if checked is None:
        sys.exit(code)
    # Not above: this takes time, which whoever mistypes is spared.
    from scaling_fl.commands.train import main

    sys.exit(main(checked))
