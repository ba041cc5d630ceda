"""The command that tries the laws on a merge of the user's own."""

import sys

import pytest

from tests.e2e.commands import ROOT, Shell

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WRONG = """
def unweighted():
    return lambda updates, round: round.mean_over_senders(
        (u.vector, 2.0**-20, None) for u in updates.once()
    )
"""


def test_a_merge_that_forgets_weights_fails(shell: Shell) -> None:
    (shell.folder / "my_module.py").write_text(WRONG)
    check = (sys.executable, str(ROOT / "scripts" / "check_merge.py"), "--cases", "5")
    command = shell.type(*check, "my_module:unweighted", "--breaks", "gauge").end(expect=1)
    assert "\nweights        BROKEN              a client is as two of half of its share\n" in (
        command.out
    )
    assert "(weights, zero client); correct the merge" in command.err
    assert not (shell.folder / ".hypothesis").exists()
