"""Say what a run will cost before it runs: bytes, privacy, disk and memory.

  scripts/plan.py with demo
  scripts/plan.py --json with configs/flasc_4.yaml num_rounds=50

Takes the settings of scripts/train_federated.py, loads the model and no data, and trains nothing.
With --json, standard output is one JSON object.
"""

import json
import signal
import sys
from pathlib import Path

from scaling_fl.core.errors import UserError

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.plan import read_settings  # noqa: E402

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv if argument != "--json"]
    config = read_settings(__file__, __doc__, arguments)
    if config is None:
        sys.exit(0)
        # Takes seconds to import, which a wrong setting is spared.
        from scaling_fl.build.prediction import predict
    from scaling_fl.reporting.plan import render

    try:
        prediction = predict(config, lambda text: print(text, file=sys.stderr)).to_json()
    except UserError as error:
        sys.exit(f"Error: {error}")
    print(json.dumps(prediction) if "--json" in sys.argv else render(prediction))
