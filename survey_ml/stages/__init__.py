"""The built-in stages, one folder each."""

from survey_ml.compiled import use_cache

use_cache()
