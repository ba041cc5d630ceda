#!/usr/bin/env python3
"""Try the laws of merges on a merge: yours, one of merge.method, or all of those.

MERGE is my_module:my_merge, a function that makes a merge (see
docs/extending.md), or a name that merge.method takes. Each law is tried on
small rounds, with real payloads, sums and workers. For a law that is broken,
the smallest case that was found to break it is shown. What the merges of the
table break by their nature is declared there; that they really break it is
checked, too.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

_EPILOG = """\
examples:
  scripts/check_merge.py my_module:my_merge
  scripts/check_merge.py my_module:my_merge --breaks weights --breaks gauge
  scripts/check_merge.py ties
  scripts/check_merge.py

Exit code: 0 when each law is kept, or broken as declared, 1 when not, 2 on
misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/check_merge.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("merge", nargs="?", metavar="MERGE", help="what to try, see above")
    add(
        "--breaks",
        action="append",
        default=[],
        metavar="LAW",
        help="a law that your merge breaks by its nature",
    )
    add("--cases", type=int, default=50, help="how many cases a law is tried on (default: 50)")
    add("--json", action="store_true", help="write one JSON object, and nothing else")
    return parser


if __name__ == "__main__":
    options = parser().parse_args()
    # Not above: this takes seconds, which a wrong option is spared.
    from scaling_fl.commands.conformance import check_merge

    sys.exit(
        check_merge(
            options.merge, breaks=options.breaks, num_cases=options.cases, as_json=options.json
        )
    )
