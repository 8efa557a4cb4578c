"""Fixtures that every test may use: where models are, the compiled sample, a cache of our own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.refusals import Refusal
from wasmgraph.crash_handlers import import_tvm

# Some test modules import TVM by themselves, after others have started Wasmtime.
import_tvm()

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process
# that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing where other work is beside it.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

CHECKOUT = Path(__file__).resolve().parents[1]
DIGITS = CHECKOUT / "samples" / "digits"


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An XDG cache for this session: the user's stays untouched, builds stay warm in between."""
    cache = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    # Go keeps its compiled packages there, too. They are not ours, and take a minute to make.
    go_cache = Path(before) if before else Path.home() / ".cache"
    os.environ.setdefault("GOCACHE", str(go_cache / "go-build"))
    os.environ["XDG_CACHE_HOME"] = str(cache)  # inherited by every process a test starts
    yield cache
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of larger models: $WASMGRAPH_MODELS, else ../shared/models beside the checkout."""
    default = CHECKOUT.parent / "shared" / "models"
    folder = Path(os.environ.get("WASMGRAPH_MODELS", default))
    if not folder.is_dir():
        pytest.skip(f"no folder of models at {folder} (WASMGRAPH_MODELS names another)")
    return folder


@pytest.fixture(scope="session")
def shared_model(shared_models: Path) -> Callable[[str], Path]:
    """Looks up one of the larger models, such as "mnist8.onnx"; skips where it is not there."""

    def find(name: str) -> Path:
        path = shared_models / name
        if not path.is_file():
            pytest.skip(f"no {name} in {shared_models}")
        return path

    return find


@pytest.fixture
def refuse(tmp_path: Path) -> Refusal:
    """Checks how a model is refused, in a folder of its own."""
    return Refusal(tmp_path)


@pytest.fixture(scope="session")
def digits_onnx() -> Path:
    """The sample's model: "image" float32 (1, 1, 8, 8) to "probabilities" float32 (1, 10)."""
    return DIGITS / "digits.onnx"


@pytest.fixture(scope="session")
def digits_wasm(digits_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample compiled once with the default options; tests must not write to it."""
    import wasmgraph

    out = tmp_path_factory.mktemp("digits") / "digits.wasm"
    wasmgraph.compile(digits_onnx, out, verify=False)
    return out


@pytest.fixture(scope="session")
def digits_component(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as a component; tests must not write to it."""
    from wasmgraph.bundle import read_bundle
    from wasmgraph.link import link

    out = tmp_path_factory.mktemp("digits-component") / "digits.wasm"
    link(read_bundle(digits_bundle), out, kind="component")
    return out


@pytest.fixture(scope="session")
def digits_bundle(digits_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's graph bundle, as `compile --bundle` keeps it; tests must not write to it."""
    import wasmgraph

    folder = tmp_path_factory.mktemp("digits-bundle")
    wasmgraph.compile(
        digits_onnx, folder / "digits.wasm", bundle_dir=folder / "bundle", verify=False
    )
    return folder / "bundle"
