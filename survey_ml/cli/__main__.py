"""``python -m survey_ml.cli`` is ``survey-ml``."""

from survey_ml.cli import main

main()
