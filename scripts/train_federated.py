"""Fine-tune a language model across data owners.

  scripts/train_federated.py with demo
  scripts/train_federated.py with site_ids=[0,0,1,1] task_name=agnews train_path=... test_path=...
  scripts/train_federated.py print_config

Every run is tracked under runs/, checkpointed, and resumed by starting it again with its job_name.
"""

import signal
import sys

# Ctrl-C during the imports ends the command without a traceback; main() then handles it.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from scaling_fl.commands.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(__doc__, sys.argv))
