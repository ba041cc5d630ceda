"""Draw docs/demo.png: what the demo learns by what it sends, whole, sparse and quantised.

    python docs/picture.py

Three runs of ``with demo``, in a folder that is thrown away.
"""

import os
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from scaling_fl import run

PICTURE = Path(__file__).parent / "demo.png"
QUARTER = {"download.density": 0.25, "upload.density": 0.25}
RUNS = {
    "LoRA": {},
    "LoRA, a quarter (FLASC)": QUARTER,
    "LoRA, a quarter in NF4": QUARTER | {"download.codec": "nf4", "upload.codec": "nf4"},
}


def main() -> None:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", xlabel="MB sent in all, both ways", ylabel="validation accuracy"
    )
    for name, settings in RUNS.items():
        curves = run("demo", settings).curves
        accuracy, megabytes = curves["validation.accuracy"], curves["bytes.total"] / 1e6
        axes.plot(megabytes, accuracy, marker="o", label=name)
        print(f"{name}: {accuracy.iloc[-1]:.4f} after {megabytes.iloc[-1]:.2f} MB")
    figure.legend(loc="outside upper center", ncols=len(RUNS), frameon=False)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
