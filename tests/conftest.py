"""What holds for every test."""

import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

from mlxstories.backend import kernels
from mlxstories.training import experiment

# Containers often forbid Python to keep bytecode: each process that a test starts would compile all of the package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

kernels.prepare()  # as every command does; not all tests begin with a step

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")  # a busy machine is no failure

# A command in the background of a shell without job control, as in some CIs, ignores Ctrl-C, and one under nohup the
# end of its terminal; so would the processes that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def brief():
    """What a training tells at its end has a few tokens: three stories as long as the context are most of what a
    training of a few updates costs."""
    whole = experiment.generate

    def begun(*args, max_tokens, **options):
        return whole(*args, max_tokens=min(max_tokens, 12), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "generate", begun)
        yield
