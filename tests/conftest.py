"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

from mlxstories.backend import kernels

kernels.prepare()  # as every command does; not all tests begin with a step

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")  # a busy machine is no failure

# A command in the background of a shell without job control, as in some CIs, ignores Ctrl-C, and one under nohup the
# end of its terminal; so would the processes that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
