"""One BLAS thread for every test: threads that wait for each other crawl when the machine is busy."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
