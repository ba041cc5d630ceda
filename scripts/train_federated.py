#!/usr/bin/env python3
"""Fine-tune a language model across data owners.

usage: scripts/train_federated.py [COMMAND] [-c TEXT] with SETTING ...

A SETTING is a value (num_rounds=10, adapter.rank=8), a named configuration
(demo), or a file of values (configs/flasc_4.yaml). Values overrule the others.

examples:
  scripts/train_federated.py with demo
  scripts/train_federated.py with demo num_rounds=5 job_name=longer
  scripts/train_federated.py with task_name=table train_path=reviews.csv \\
    data.text=title,body data.label=stars data.test_share=0.2 model=minilm

commands:
  print_config        show every setting with its value and what it means

options:
  -c, --comment TEXT  keep a comment with the record of the run
  -h, --help          show this

Every run is tracked under runs/ and saved under checkpoints/. A run that ended
goes on when the same command is given its job_name.

Exit code: 0 when done, 1 when that failed, 2 on misuse, 130 after Ctrl-C,
143 after SIGTERM or when the terminal was closed.
"""

import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback; main() then handles it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.settings import read_training  # noqa: E402

if __name__ == "__main__":
    checked, code = read_training(__doc__, sys.argv)
    if checked is None:
        sys.exit(code)
    # Not above: this takes time, which whoever mistypes is spared.
    from scaling_fl.commands.train import main

    sys.exit(main(checked))
