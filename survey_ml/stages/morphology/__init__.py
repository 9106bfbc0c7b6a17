"""Morphology of sources: cutouts, and a trained model that classifies them."""
