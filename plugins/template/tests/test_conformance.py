"""The distribution keeps the contract of survey_ml plugins."""

from pathlib import Path

from survey_ml.conformance import check_plugin


def test_conforms() -> None:
    check_plugin(Path(__file__).parents[1]).raise_if_failed()
