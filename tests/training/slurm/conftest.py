"""A Slurm of the tests' own, where one can be started."""

from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster, why_not


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Started once for a file of tests; its programs find it by SLURM_CONF."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    slurm = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        try:
            try:
                slurm.start()
            except (OSError, RuntimeError) as error:
                pytest.skip(f"Slurm is installed and does not start here: {error}")
            for name, value in slurm.environment().items():
                patch.setenv(name, value)
            yield slurm
        finally:
            slurm.stop()
