"""Samples recorded from outside: PayPal's events, signed deliveries and API answers, and the published privacy policy.

They are in ../shared, next to the checkout, or in the folder SMT_TEST_SAMPLES. They are not public, so a clone does not
have them.
"""

import os
from pathlib import Path

import pytest

NOT_HERE = "the samples recorded from PayPal are not at ../shared"
SHARED = Path(os.environ.get("SMT_TEST_SAMPLES") or Path(__file__).resolve().parents[3] / "shared")


def recorded(path: str) -> Path:
    """Return this file or folder of ../shared. Without the samples, skip the test; the summary has one line for all."""
    if not (SHARED / "paypal").is_dir():
        pytest.skip(NOT_HERE)
    return SHARED / path
