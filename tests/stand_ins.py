"""Small programs in the place of workers: each does what its orders say, and starts at once."""

import sys

from scaling_fl.runtime.machines.start import FreshProcesses

STAND_IN = """
import json, os, signal, sys, time
orders = json.loads(sys.stdin.readline())
def emit(event, **fields):
    print(json.dumps(dict(event=event, **fields)), flush=True)
def stopped(*_):
    os._exit(143)
signal.signal(signal.SIGTERM, stopped)
signal.signal(signal.SIGINT, signal.SIG_IGN)
exec(orders["plays"][orders["meeting"]["local_index"]])
"""


def stand_ins() -> FreshProcesses:
    """Start workers that run the Python text in ``plays`` of their orders."""
    return FreshProcesses([sys.executable, "-c", STAND_IN])
