"""Peaks only: the simplest finder, for comparison and as a test double."""
