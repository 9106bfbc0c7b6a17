"""Simulated skies with an exact truth: counts, sources, noise and rendering, from one seed."""
