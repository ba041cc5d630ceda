#!/usr/bin/env python3
"""Try the laws of codecs on a codec: yours, one of upload.codec, or all of those.

CODEC is my_module:my_codec, a Codec (see scaling_fl/methods/wire/codecs.py), or
a name that upload.codec takes. Each law is tried on vectors of many sizes and
magnitudes. For a law that is broken, the smallest case that was found to break
it is shown. A codec declares what it breaks by its nature, and how large its
error may be: Codec(encode, decode, num_bytes, error=0.01, breaks={"again": WHY}).
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
  scripts/check_codec.py my_module:my_codec
  scripts/check_codec.py nf4
  scripts/check_codec.py

Exit code: 0 when each law is kept, or broken as declared, 1 when not, 2 on
misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/check_codec.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("codec", nargs="?", metavar="CODEC", help="what to try, see above")
    add("--cases", type=int, default=50, help="how many cases a law is tried on (default: 50)")
    add("--json", action="store_true", help="write one JSON object, and nothing else")
    return parser


if __name__ == "__main__":
    options = parser().parse_args()
    # Not above: this takes seconds, which a wrong option is spared.
    from scaling_fl.commands.conformance import check_codec

    sys.exit(check_codec(options.codec, num_cases=options.cases, as_json=options.json))
