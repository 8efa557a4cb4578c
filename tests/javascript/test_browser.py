"""The JavaScript package in a real Chromium: fetching, the cache, workers, threads, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import wasmgraph
from tests.hostile_graphs import write_hostile
from tests.javascript.site import ISOLATED, Site
from tests.runtime.test_threads import SHARES, X, Y, bundle, with_a_seven
from wasmgraph.link import link

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

PACKAGE = Path(__file__).resolve().parents[2] / "toolchain" / "javascript"
IMAGE = np.random.default_rng(5).random((1, 1, 8, 8), dtype=np.float32)
SECONDS = 60
PAGE = b"""<!doctype html><title>wasmgraph</title><link rel="icon" href="data:,">
<script type="module">
import * as wasmgraph from "/package/src/index.js";
Object.assign(window, wasmgraph);
window.isReady = true;
</script>"""
RUN = """async ([source, inputs, options]) => {
    const graph = await load(source, options);
    const outputs = [];
    for (const input of inputs) {
        try {
            const [output] = Object.values(await graph.run(input));
            outputs.push([...output.data]);
        } catch (error) {
            outputs.push({kind: error.kind, message: error.message});
        }
    }
    graph.close();
    return outputs;
}"""

Open = Callable[..., Any]


class Visitor:
    """A browser profile of its own."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.said: list[str] = []

    def open(self, site: Site) -> Any:
        """A page of the site with the package's exports as globals."""
        page = self.context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.goto(f"{site.url}/")
        page.wait_for_function("window.isReady")
        return page


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Somebody who was never on the site."""
    context = browser.new_context()
    context.set_default_timeout(1000 * SECONDS)
    yield Visitor(context)
    context.close()


@pytest.fixture
def site(serve: Callable[..., Site], digits_wasm: Path) -> Site:
    """A site with the package and the digits, cross-origin isolated."""
    return serve({"/": PAGE, "/package": PACKAGE, "/digits.wasm": digits_wasm}, ISOLATED)


@pytest.fixture(scope="module")
def probabilities(digits_wasm: Path) -> np.ndarray:
    """What the digits are under Wasmtime."""
    with wasmgraph.load(digits_wasm) as graph:
        return graph.run({"image": IMAGE})["probabilities"]


def run_digits(page: Any, source: str = "/digits.wasm", **options: Any) -> np.ndarray:
    """The probabilities of `IMAGE`."""
    (output,) = page.evaluate(RUN, [source, [{"image": IMAGE.ravel().tolist()}], options])
    return np.float32([output])


@pytest.mark.parametrize("options", [{}, {"worker": True}, {"timeout": 60_000}], ids=str)
def test_a_page_gets_wasmtimes_bits(
    visitor: Visitor, site: Site, probabilities: np.ndarray, options: dict[str, Any]
) -> None:
    page = visitor.open(site)
    np.testing.assert_array_equal(run_digits(page, **options), probabilities)


def test_a_second_visit_asks_for_nothing(
    visitor: Visitor, site: Site, probabilities: np.ndarray
) -> None:
    run_digits(visitor.open(site))
    assert site.asked.count("/digits.wasm") == 1
    page = visitor.open(site)
    np.testing.assert_array_equal(run_digits(page), probabilities)
    np.testing.assert_array_equal(run_digits(page, maxMemory=1 << 26), probabilities)
    assert site.asked.count("/digits.wasm") == 1
    # With the server gone, too.
    site.stop()
    np.testing.assert_array_equal(run_digits(page), probabilities)


def test_a_page_fetches_only_what_it_needs(visitor: Visitor, site: Site) -> None:
    run = """async ([image]) => {
        const graph = await load("/digits.wasm");
        await graph.run({ image: new Float32Array(image) });
        return graph;
    }"""
    page = visitor.open(site)
    at_once = {path for path in site.asked if path.endswith(".js")}
    page.evaluate(f"async (given) => {{ window.graph = await ({run})(given); }}", [[0.5] * 64])
    fetched = {path for path in site.asked if path.endswith(".js")}
    assert {Path(path).stem for path in fetched - at_once} == {"keep"}
    site.asked.clear()
    visitor.open(site).evaluate(run.replace("return graph", "graph.close()"), [[0.5] * 64])
    assert "/package/src/keep.js" not in site.asked, "a second visit has nothing to keep"
    # Problems bring their words, and without a server the kind of error is still right.
    site.stop()
    told = page.evaluate("""async () => {
        try {
            await load("/elsewhere.wasm");
        } catch ({ kind, message, cause }) {
            return [kind, message, cause.name];
        }
    }""")
    assert told == ["LoadError", "unreadable", "/elsewhere.wasm"]


def test_what_is_kept_is_found_by_its_contents(
    visitor: Visitor,
    serve: Callable[..., Site],
    digits_wasm: Path,
) -> None:
    files = {"/": PAGE, "/package": PACKAGE, "/a.wasm": digits_wasm, "/b.wasm": digits_wasm}
    site = serve(files, {})
    page = visitor.open(site)
    run_digits(page, "/a.wasm")
    digest = hashlib.sha256(digits_wasm.read_bytes()).hexdigest()
    run_digits(page, "/b.wasm", cache=digest)
    assert "/b.wasm" not in site.asked
    with pytest.raises(Exception, match=f"LoadError: /b.wasm: it has the SHA-256 {digest}, not 0"):
        run_digits(page, "/b.wasm", cache="0" * 64)


def test_reload_replaces_what_is_kept(
    visitor: Visitor, site: Site, probabilities: np.ndarray
) -> None:
    page = visitor.open(site)
    run_digits(page, cache=False)
    assert page.evaluate("async () => (await (await caches.open('wasmgraph')).keys()).length") == 0
    run_digits(page)
    run_digits(page, cache="reload")
    assert site.asked.count("/digits.wasm") == 3
    np.testing.assert_array_equal(run_digits(page), probabilities)
    assert site.asked.count("/digits.wasm") == 3
    assert page.evaluate("async () => (await (await caches.open('wasmgraph')).keys()).length") == 2


def test_what_is_no_graph_any_more_is_fetched_again(
    visitor: Visitor, site: Site, probabilities: np.ndarray
) -> None:
    page = visitor.open(site)
    run_digits(page)
    page.evaluate("""async () => {
        const cache = await caches.open("wasmgraph");
        for (const { url } of await cache.keys()) {
            if (url.includes("invalid")) await cache.put(url, new Response("of an older version"));
        }
    }""")
    np.testing.assert_array_equal(run_digits(page), probabilities)
    assert site.asked.count("/digits.wasm") == 2


def test_what_is_no_graph_is_not_kept(
    visitor: Visitor,
    serve: Callable[..., Site],
) -> None:
    site = serve({"/": PAGE, "/package": PACKAGE, "/page.wasm": PAGE}, {})
    page = visitor.open(site)
    for source, message in (("/page.wasm", "magic word"), ("/none.wasm", "answered 404")):
        for _ in range(2):
            with pytest.raises(Exception, match=message):
                run_digits(page, source)
        assert site.asked.count(source) == 2


@pytest.fixture(scope="module")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A graph for several threads."""
    folder = tmp_path_factory.mktemp("threaded")
    return lambda symbol: link(bundle(symbol), folder / f"{symbol}.wasm").path


def open_threaded(
    visitor: Visitor,
    serve: Callable[..., Site],
    graph: Path,
    headers: dict[str, str],
) -> Any:
    return visitor.open(serve({"/": PAGE, "/package": PACKAGE, "/graph.wasm": graph}, headers))


def run_graph(page: Any, inputs: list[np.ndarray], **options: Any) -> Any:
    return page.evaluate(RUN, ["/graph.wasm", [{"x": x.tolist()} for x in inputs], options])


def test_threads_on_an_isolated_page(
    visitor: Visitor,
    serve: Callable[..., Site],
    threaded: Callable[[str], Path],
) -> None:
    # A graph that does not go on before two threads are in it.
    page = open_threaded(visitor, serve, threaded("meet"), ISOLATED)
    assert run_graph(page, [X, X + 1], threads=2) == [Y.tolist(), (Y + 16).tolist()]
    for options in ({"timeout": 60_000}, {"worker": False}):
        assert run_graph(page, [X], threads=2, **options) == [Y.tolist()]
    assert visitor.said == []


def test_a_trap_in_a_thread_ends_the_run_only(
    visitor: Visitor,
    serve: Callable[..., Site],
    threaded: Callable[[str], Path],
) -> None:
    page = open_threaded(visitor, serve, threaded("trap"), ISOLATED)
    seven = with_a_seven(SHARES - 1)
    before, error, after = run_graph(page, [X, seven, X], threads=2)
    assert (before, after) == (Y.tolist(), Y.tolist())
    assert error["kind"] == "InferenceError"
    assert "unreachable" in error["message"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_without_end_is_stopped(
    visitor: Visitor,
    serve: Callable[..., Site],
    threaded: Callable[[str], Path],
    threads: int,
) -> None:
    page = open_threaded(visitor, serve, threaded("spin"), ISOLATED)
    seven = with_a_seven(SHARES - 1)
    stopped, after = run_graph(page, [seven, X], threads=threads, timeout=4000)
    assert stopped["kind"] == "RunTimeout"
    assert after == Y.tolist()


def test_one_thread_and_a_note_on_a_page_that_is_not_isolated(
    visitor: Visitor,
    serve: Callable[..., Site],
    threaded: Callable[[str], Path],
) -> None:
    page = open_threaded(visitor, serve, threaded("double"), {})
    assert run_graph(page, [X, X + 1], threads=2) == [Y.tolist(), (Y + 16).tolist()]
    (note,) = visitor.said
    assert "one thread instead of several" in note
    assert run_graph(page, [X]) == [Y.tolist()]
    assert len(visitor.said) == 1


def test_a_web_worker_runs_a_graph(visitor: Visitor, site: Site, probabilities: np.ndarray) -> None:
    page = visitor.open(site)
    script = """
        import { load } from "%s/package/src/index.js";
        onmessage = async ({ data: [source, image] }) => {
            const graph = await load(source);
            postMessage((await graph.run({ image })).probabilities.data);
        };
    """
    found = page.evaluate(
        """([script, source, image]) => new Promise((resolve, reject) => {
            const blob = new Blob([script], { type: "text/javascript" });
            const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
            worker.onmessage = ({ data }) => resolve([...data]);
            worker.onerror = ({ message }) => reject(message);
            worker.postMessage([source, image]);
        })""",
        [script % site.url, f"{site.url}/digits.wasm", IMAGE.ravel().tolist()],
    )
    np.testing.assert_array_equal(np.float32([found]), probabilities)


def test_hostile_graphs_end_as_they_must(
    visitor: Visitor,
    serve: Callable[..., Site],
    tmp_path: Path,
) -> None:
    entries = json.loads(write_hostile(tmp_path).read_text())
    site = serve({"/": PAGE, "/package": PACKAGE, "/hostile": tmp_path}, ISOLATED)
    page = visitor.open(site)
    found = page.evaluate(
        """async (entries) => {
            const { ARRAYS } = await import("/package/src/tensor.js");
            const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const decode = ({ name, dtype, shape, data }) =>
                [name, { data: new ARRAYS[dtype](bytes(data).buffer), shape, dtype }];
            const found = [];
            for (const { file, inputs, memory, seconds } of entries) {
                const limits = {
                    maxMemory: memory ?? undefined,
                    timeout: seconds ? 1e3 * seconds : undefined,
                };
                try {
                    const graph = await load(`/hostile/${file}`, { cache: false, ...limits });
                    await graph.run(Object.fromEntries(inputs.map(decode)));
                    graph.close();
                    found.push(null);
                } catch (error) {
                    found.push(error.kind ?? String(error));
                }
            }
            return found;
        }""",
        entries,
    )
    kinds = {entry["name"]: entry.get("kind") for entry in entries}
    assert dict(zip(kinds, found, strict=True)) == kinds


def test_a_canvas_becomes_an_input(visitor: Visitor, site: Site) -> None:
    page = visitor.open(site)
    found = page.evaluate("""() => {
        const context = Object.assign(document.createElement("canvas"), { width: 4, height: 2 })
            .getContext("2d");
        context.fillStyle = "rgb(255, 0, 51)";
        context.fillRect(0, 0, 4, 2);
        const { data, shape } = fromImageData(context.getImageData(0, 0, 4, 2), { size: 1 });
        return [...data, ...shape];
    }""")
    np.testing.assert_allclose(found, [1, 0, 0.2, 1, 3, 1, 1], rtol=1e-6)  # float32
