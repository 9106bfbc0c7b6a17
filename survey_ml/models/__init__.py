"""Trained models: files with a card, where they are, and how they are run."""
