"""What holds for every test."""

import signal

# A command in the background of a shell without job control, as in some CIs, ignores Ctrl-C, and so would the
# processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
