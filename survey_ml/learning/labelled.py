"""Labelled images under the name that training knows them by."""

from survey_ml.labelled import SPLITS, LabelledImages

__all__ = ["SPLITS", "LabelledImages"]
