"""onnx's node tests through the `.wasm`: `make conformance`, or `python -m tests.conformance`.

Every test is compiled by `wasmgraph.backend`, run under Wasmtime and compared as onnx's own runner
compares. It lies in tests/ and not beside benchmarks/ since what it leaves is a test's expectation:

    passing.txt    the tests that pass, one name per line; one of them that fails is a regression
    outcomes.json  why the others fail, and which tests need inputs compiled in
    subset.txt     those of passing.txt that `make test` runs, spread over the operators
    OPERATORS.md   (in the root) the same by operator, for people

`make conformance UPDATE=1` writes all four. With FILTER, a regular expression, only the tests that
it finds are run, and the rest of the files stays as it is.
"""
