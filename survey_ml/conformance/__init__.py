"""Whether a plugin keeps the contract: a test that its own continuous integration can call.

``from survey_ml.conformance import check_plugin`` and, in a test,
``check_plugin("my-plugin").raise_if_failed()``.
"""

from survey_ml.conformance.check import check_plugin
from survey_ml.conformance.result import Check, Report

__all__ = ["Check", "Report", "check_plugin"]
