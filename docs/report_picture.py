"""Make docs/report.png: the top of a report of what docs/picture.py draws, three seeds of each.

    python docs/report_picture.py

The runs are in a folder that is thrown away. The page is opened in Chromium, which must be
installed with its driver.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "benchmarks"))

from browser import browser  # noqa: E402
from picture import RUNS  # noqa: E402

from scaling_fl import run  # noqa: E402
from scaling_fl.commands.report import ReportOptions, main  # noqa: E402

SEEDS = (1, 2, 3)
SIZE = (1000, 1180)


def make() -> None:
    for seed in SEEDS:
        for settings in RUNS.values():
            run("demo", settings, seed=seed, data_seed=seed, tracking={"runs_dir": "runs"})
    reference = ["upload.density=1", "upload.codec=none"]
    options = ReportOptions(places=["runs"], out=Path("report"), reference=reference)
    assert main(options) == 0
    with browser() as window:
        window.resize(*SIZE)
        window.open(Path("report/index.html"))
        window.wait_for("document.querySelector('#curves-0').dataset.drawn")
        (HERE / "report.png").write_bytes(window.screenshot())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make()
