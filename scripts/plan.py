"""Say what a run will cost before it runs: bytes, privacy, disk and memory.

  scripts/plan.py with demo
  scripts/plan.py --json with configs/flasc_4.yaml num_rounds=50

Takes the settings of scripts/train_federated.py, loads the model and no data, and trains nothing.
"""

import sys

from scaling_fl.plan_command import main

if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, sys.argv))
