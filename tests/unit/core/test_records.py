"""Reports travel, and are kept, as flat JSON records."""

import json

import pytest

from scaling_fl.core.records import ClientReport


def report_of(**metrics: float) -> ClientReport:
    return ClientReport(
        round=1,
        client=2,
        num_examples=3,
        metrics=metrics,
        update_norm=1.0,
        download_bytes=4,
        upload_bytes=5,
        seconds=6.0,
    )


def test_metrics_stand_beside_the_fields_and_come_back() -> None:
    report = report_of(loss=0.5, rouge_l=0.25)
    record = json.loads(json.dumps(report.to_json()))
    assert (record["loss"], record["rouge_l"], record["client"]) == (0.5, 0.25, 2)
    assert "metrics" not in record
    assert ClientReport.from_json(record) == report


def test_a_metric_must_not_hide_a_field() -> None:
    with pytest.raises(ValueError, match="must not be named seconds"):
        report_of(seconds=0.5).to_json()
