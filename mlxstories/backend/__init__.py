"""The one place that knows which device it runs on: kernels, BLAS, memory."""
