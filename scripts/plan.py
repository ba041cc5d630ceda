#!/usr/bin/env python3
"""Say what a run will cost before it runs: bytes, privacy, disk, memory, time.

usage: scripts/plan.py [--time] [--json] [--secure-sum] with SETTING ...

It takes the settings of scripts/train_federated.py, loads the model and no
data, and trains nothing, unless the time is asked for. A config.json alone
may stand for the model.

examples:
  scripts/plan.py with demo
  scripts/plan.py --time with demo num_rounds=10
  scripts/plan.py --json with configs/flasc_4.yaml model=minilm num_rounds=50
  scripts/plan.py with configs/flasc_4.yaml model=gemma/config.json

options:
  --time      predict the time, too, from a few training steps and a batch of
              the test data, measured on this machine
  --json      write one JSON object, and nothing else
  --secure-sum
              the bytes of a run with scripts/flower_run.py --secure-sum
  -h, --help  show this

Exit code: 0 when done, 1 when that failed, 2 on misuse.
"""

import signal
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()
# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.settings import read_plan  # noqa: E402

if __name__ == "__main__":
    checked, code = read_plan(__doc__, sys.argv)
    if checked is None:
        sys.exit(code)
    # Not above: this takes seconds, which a wrong setting is spared.
    from scaling_fl.commands.plan import main

    given = checked.line.options
    began = BEGAN if "--time" in given else None
    is_secure = "--secure-sum" in given
    sys.exit(main(checked, as_json="--json" in given, began=began, is_secure=is_secure))
