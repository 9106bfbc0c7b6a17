"""Simulated skies with an exact truth: counts, sources, noise and rendering, from one seed."""

from survey_ml.compiled import use_cache

use_cache()
