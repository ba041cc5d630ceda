#!/usr/bin/env python3
"""Show what a run would understand of its data, before anything is trained.

usage: scripts/look.py [--json] [--out FILE] with SETTING ...

It takes the settings of scripts/train_federated.py, reads and tokenises the
data (which a run then finds in the cache), and shows: rows and columns, the
labels, the clients and what they have, how long the texts are, what is cut
at max_seq_len, and three examples as the model will see them; of
conversations also which part of them is learned.

examples:
  scripts/look.py with demo
  scripts/look.py with task_name=table train_path=reviews.csv \\
    data.test_share=0.2 data.text=title,body data.label=stars \\
    partition.kind=column partition.column=shop

options:
  --json      write one JSON object, and nothing else
  --out FILE  the picture, by its ending a .png, .svg or .pdf
              (default: runs/look.png)
  -h, --help  show this

Exit code: 0 when done, 1 when that failed, 2 on misuse.
"""

import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.settings import read_look  # noqa: E402

if __name__ == "__main__":
    checked, code = read_look(__doc__, sys.argv)
    if checked is None:
        sys.exit(code)
    # Not above: this takes seconds, which a wrong setting is spared.
    from scaling_fl.commands.look import main

    options = checked.line.options
    out = Path(options["--out"]) if "--out" in options else None
    sys.exit(main(checked.config, out=out, as_json="--json" in options))
