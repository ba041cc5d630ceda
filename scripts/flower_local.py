#!/usr/bin/env python3
"""Run a federation on real nodes of Flower on this machine: TLS, keys, data of their own.

A SuperLink and its nodes are started as they would be on machines of their own.
All of it is kept below FOLDER; what was started stays until it is stopped.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback; main() then handles it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.flower_local import (  # noqa: E402
    main_forget,
    main_run,
    main_start,
    main_status,
    main_stop,
)
from scaling_fl.commands.flower_run import split_at_with  # noqa: E402

_EPILOG = """\
examples:
  scripts/flower_local.py start fed --nodes 2
  scripts/flower_local.py start shop --nodes 3 --data reviews.csv
  scripts/flower_local.py run fed with demo num_rounds=3
  scripts/flower_local.py status fed
  scripts/flower_local.py forget fed
  scripts/flower_local.py stop fed

start also brings back what has died of a deployment. A run is tracked under
runs/ and saved under checkpoints/ of the folder in which start was typed.

Exit code: 0 when done, 1 when that failed, 2 on misuse, 130 after Ctrl-C (which
ends the run, not the nodes), 143 after SIGTERM."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/flower_local.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {
        "start": "start a SuperLink and its nodes, or what has died of them",
        "run": "run on the nodes; what follows with is that of train_federated.py",
        "status": "say what runs",
        "forget": "have nodes forget JOB; without JOB, list the jobs that they remember",
        "stop": "end all processes; keys, memories and data stay in FOLDER",
    }.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        what = "of the deployment, or of one node" if name == "forget" else "of the deployment"
        command.add_argument("folder", type=Path, metavar="FOLDER", help=what)
        if name == "start":
            add = command.add_argument
            add("--nodes", type=int, metavar="N", help="how many (default 2, or those of FOLDER)")
            add("--data", metavar="TABLE", help="a table whose rows are dealt to the nodes")
            what = "another one, that each node is tested by rows of"
            add("--test-data", metavar="TABLE", help=what)
        if name == "forget":
            command.add_argument("job", nargs="?", metavar="JOB", help="its name or its uid")
        if name == "run":
            command.usage = "scripts/flower_local.py run FOLDER [options] with SETTING ..."
            add = command.add_argument
            what = "let the server learn the sum of updates alone"
            add("--secure-sum", action="store_true", help=what)
            what = "another Flower app than this"
            add("--app", type=Path, default=ROOT, metavar="APP", help=what)
    return parser


if __name__ == "__main__":
    before, settings = split_at_with(sys.argv[1:])
    options = parser().parse_args(before)
    if options.command == "start":
        tables = {"--data": options.data, "--test-data": options.test_data}
        sys.exit(main_start(options.folder, options.nodes, tables))
    if options.command == "forget":
        sys.exit(main_forget(options.folder, options.job))
    if options.command == "run":
        app, is_secure = options.app.resolve(), options.secure_sum
        sys.exit(main_run(options.folder, settings, app, is_secure=is_secure))
    sys.exit({"status": main_status, "stop": main_stop}[options.command](options.folder))
