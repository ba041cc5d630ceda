"""The commands ``scripts/check_merge.py`` and ``check_codec.py``: laws, on anyone's function."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from hypothesis.configuration import set_hypothesis_home_dir

from scaling_fl.commands.endings import Misused, end, raise_on_signals, show, stage
from scaling_fl.config.merges import MERGES
from scaling_fl.config.own import is_own
from scaling_fl.conformance.codec_laws import laws_of, tried_codec
from scaling_fl.conformance.merge_laws import MERGE_LAWS
from scaling_fl.conformance.trial import Verdict, judge
from scaling_fl.conformance.tried_merge import tried_merge
from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.reporting.laws import render, render_all

Try = Callable[[str], list[Verdict]]


def check_merge(name: str | None, *, breaks: Sequence[str], num_cases: int, as_json: bool) -> int:
    """Try the laws of merges on one, or on all of the table; returns the exit code.

    ``breaks`` are the laws that a merge of the user is declared to break.
    """

    def trying(each: str) -> list[Verdict]:
        declared = dict.fromkeys(breaks, "as --breaks says")
        return judge(MERGE_LAWS, tried_merge(each, declared), num_cases=num_cases)

    def run() -> None:
        if breaks and (name is None or not is_own(name)):
            raise Misused(
                f"--breaks must be for a merge of your own, got {name or 'none'}; "
                "the table of merges says what the others break."
            )
        laws = [law.name for law in MERGE_LAWS]
        if unknown := [law for law in breaks if law not in laws]:
            raise Misused(
                f"--breaks must name a law, got {unknown[0]!r}; use one of {', '.join(laws)}."
            )
        _check("merge", name, MERGES, trying, num_cases, as_json=as_json)

    raise_on_signals()
    return end(run, with_environment=False)


def check_codec(name: str | None, *, num_cases: int, as_json: bool) -> int:
    """Try the laws of codecs on one, or on all of the table; returns the exit code."""

    def trying(each: str) -> list[Verdict]:
        tried = tried_codec(each)
        return judge(laws_of(tried), tried, num_cases=num_cases)

    raise_on_signals()
    run = partial(_check, "codec", name, CODECS, trying, num_cases, as_json=as_json)
    return end(run, with_environment=False)


def _check(
    kind: str,
    name: str | None,
    table: Iterable[str],
    trying: Try,
    num_cases: int,
    *,
    as_json: bool,
) -> None:
    if num_cases < 1:
        raise Misused(f"--cases must be at least 1, got {num_cases}; leave it out.")
    names = [*table] if name is None else [name]
    if name is not None and name not in table and not is_own(name):
        raise Misused(
            f"the {kind} must be one of {', '.join(table)}, or my_module:my_{kind}, got {name!r}; "
            "correct the name."
        )
    found = _found(names, trying)
    rows = {each: [one.to_json() for one in verdicts] for each, verdicts in found.items()}
    if as_json:
        show(json_text(rows))
    else:
        show(render_all(rows) if name is None else render(rows[name]))
    bad = {each: [one.law for one in found[each] if not one.is_good] for each in names}
    if said := [f"{each} ({', '.join(laws)})" for each, laws in bad.items() if laws]:
        raise UserError(
            f"a {kind} must keep each law, or break it as it declares, which is not so of "
            f"{'; '.join(said)}; correct the {kind}, or declare what it breaks by its nature."
        )


def _found(names: Iterable[str], trying: Try) -> dict[str, list[Verdict]]:
    torch.set_num_threads(1)  # on several, tensors this small only wait for each other
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)  # and not the folder of the caller
        for each in names:
            stage(f"trying {each}")
            try:
                found[each] = trying(each)
            except UserError as error:
                raise Misused(str(error)) from None
    return found
