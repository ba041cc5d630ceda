"""Say what a run will cost before it runs: bytes, privacy, disk and memory.

  scripts/plan.py with demo
  scripts/plan.py --json with configs/flasc_4.yaml num_rounds=50

Takes the settings of scripts/train_federated.py, loads the model and no data, and trains nothing.
With --json, standard output is one JSON object.
"""

import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.endings import end  # noqa: E402
from scaling_fl.commands.settings import read_settings  # noqa: E402
from scaling_fl.config import Config  # noqa: E402

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv if argument != "--json"]
    configs: list[Config] = []
    code = end(lambda: configs.extend(read_settings("plan", __doc__, arguments)))
    if not configs:
        sys.exit(code)
    # Not above: this takes seconds, which a wrong setting is spared.
    from scaling_fl.commands.plan import main

    sys.exit(main(configs[0], as_json="--json" in sys.argv))
