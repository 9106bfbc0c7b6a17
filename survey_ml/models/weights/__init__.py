"""The files of the built-in models."""

from __future__ import annotations

from pathlib import Path


def find_weights(name: str) -> Path:
    """Return the path of a built-in model's file."""
    return Path(__file__).with_name(f"{name}.safetensors")
