"""The processes that are measured: one system each, told what to do by `benchmarks.worker`."""
