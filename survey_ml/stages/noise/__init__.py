"""Noise autocorrelation of a field."""
