"""What does not move is told at once, and once."""

from typing import Any

from scaling_fl.composition.notices import Notices
from scaling_fl.config import defaults
from scaling_fl.core.records import ClientReport, RoundReport

SETTINGS = defaults()


def client(number: int, norm: float, **changes: Any) -> ClientReport:
    facts: dict[str, Any] = {
        "round": 1, "client": number, "num_examples": 8, "metrics": {"loss": 1.0},
        "update_norm": norm, "download_bytes": 1, "upload_bytes": 1, "seconds": 0.1,
    }  # fmt: skip
    return ClientReport(**facts | changes)


def report(number: int, *clients: ClientReport, unmoved: str = "") -> RoundReport:
    return RoundReport(round=number, metrics={}, clients=list(clients), unmoved=unmoved)


def test_an_update_of_zero_is_told_once_for_each_client() -> None:
    notices = Notices(SETTINGS, lambda _: 0.1)
    assert notices.of(report(1, client(0, 0.5), client(1, 1e-30))) == []
    assert notices.of(report(2, client(0, 0.0), client(1, 0.5), client(2, 0.0))) == [
        "round 2: the update of clients 0, 2 is exactly zero, so nothing was learned there; check "
        "learning_rate (2e-05 with optimiser=sgd), server.learning_rate."
    ]
    assert notices.of(report(3, client(0, 0.0), client(2, 0.0))) == []
    (later,) = notices.of(report(4, client(0, 0.0), client(1, 0.0)))
    assert "the update of client 1 is exactly zero" in later
    many = [client(number, 0.0) for number in range(9)]
    (text,) = Notices(SETTINGS, lambda _: 0.1).of(report(1, *many))
    assert "clients 0, 1, 2, 3, 4, ... is" in text


def test_a_client_that_was_left_out_or_had_nothing_to_do_is_no_warning() -> None:
    notices = Notices(SETTINGS, lambda _: 0.1)
    failed = client(0, 0.0, failure="its loss is nan")
    assert notices.of(report(1, failed, client(1, 0.0, num_examples=0))) == []


def test_a_learning_rate_of_zero_moves_nothing_as_it_should() -> None:
    """As in the last round of a schedule that ends at zero."""
    notices = Notices(SETTINGS, lambda number: 0.0 if number == 3 else 0.1)
    assert notices.of(report(3, client(0, 0.0), unmoved="the global state")) == []


def test_a_state_or_an_adapter_that_does_not_move_is_told_once() -> None:
    lora = {**SETTINGS, "adapter": {"kind": "lora"}}
    notices = Notices(lora, lambda _: 0.1)
    assert notices.of(report(1, unmoved="the adapter")) == [
        "round 1 has not moved the adapter: not one value changed, and what does not move does not "
        "learn; check learning_rate (2e-05 with optimiser=sgd), server.learning_rate and "
        "adapter.targets."
    ]
    assert notices.of(report(2, unmoved="the adapter")) == []
    assert len(notices.of(report(3, unmoved="the global state"))) == 1


def test_who_keeps_b_cannot_move_a_in_a_first_turn_of_one_step() -> None:
    notices = Notices({**SETTINGS, "merge": {"method": "share_a"}}, lambda _: 0.1)
    still = [client(number, 0.0) for number in range(3)]
    assert notices.of(report(1, *still[:2], unmoved="the global state")) == []
    assert notices.of(report(2, still[2], unmoved="the global state")) == []
    of_clients, of_state = notices.of(report(3, *still[1:], unmoved="the global state"))
    assert "round 3: the update of clients 1, 2 is exactly zero" in of_clients
    assert "round 3 has not moved the global state" in of_state
