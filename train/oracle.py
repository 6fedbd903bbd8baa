"""The float64 reference beside the repository, for tests: oracle.reference() is its module."""
import importlib.util
import sys
from pathlib import Path

import pytest


def reference():
    """Skips the test where it is not there."""
    path = Path(__file__).resolve().parents[2] / "shared" / "oracle" / "reference.py"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module
