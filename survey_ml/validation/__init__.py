"""Matching and scoring catalogues: completeness, reliability, pulls."""
