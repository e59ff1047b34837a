"""What several of the server's tests take by name."""

from pathlib import Path

import pytest

from .certificates import Certificates


@pytest.fixture
def tls(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)
