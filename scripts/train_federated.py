"""Fine-tune a language model across data owners.

  scripts/train_federated.py with demo
  scripts/train_federated.py with site_ids=[0,0,1,1] task_name=agnews train_path=... test_path=...
  scripts/train_federated.py print_config

Every run is tracked under runs/, checkpointed, and resumed by starting it again with its job_name.
"""

import sys

from scaling_fl.experiment import main

if __name__ == "__main__":
    sys.exit(main(__file__, __doc__, sys.argv))
