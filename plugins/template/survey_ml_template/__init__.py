"""A plugin for survey_ml to copy and change."""
