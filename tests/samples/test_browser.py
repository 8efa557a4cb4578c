"""The page of samples/browser in a real Chromium: drawn on, dropped on, by keyboard, off line."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import chromium
from tests.samples.strokes import DIGITS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "samples" / "browser"
PICTURES = CHECKOUT / "samples" / "digits" / "images"
SECONDS = 60_000
"""In milliseconds, for whatever a page waits for: a busy machine is no failure."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(digits_wasm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page put together as `make web` does."""
    folder = tmp_path_factory.mktemp("web") / "web"
    shutil.copytree(PAGE, folder)
    shutil.copytree(CHECKOUT / "toolchain" / "javascript" / "src", folder / "wasmgraph")
    shutil.copy(digits_wasm, folder / "digits.wasm")
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, PAGE / "serve.py", site, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0], process
        process.kill()


@pytest.fixture
def page(browser: Browser, server: tuple[str, subprocess.Popen[str]]) -> Iterator[Page]:
    """The page, its network loaded; what a script throws fails the test."""
    with browser.new_context(color_scheme="light") as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server[0])
        wait_for(page, "Draw a digit")
        yield page
        assert errors == []


def wait_for(page: Page, start: str) -> None:
    """Until the verdict begins so."""
    page.wait_for_function(
        "start => document.querySelector('#verdict').textContent.startsWith(start)", arg=start
    )


def draw(page: Page, digit: str) -> None:
    """With the mouse."""
    box = page.locator("#paper").bounding_box()
    assert box is not None
    for stroke in DIGITS[digit]:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def test_every_digit_is_read_as_it_is_drawn(page: Page) -> None:
    for digit in DIGITS:
        draw(page, digit)
        wait_for(page, f"{digit},")
        page.click("#clear")
        wait_for(page, "Draw a digit")


def test_the_bars_and_the_time_belong_to_the_verdict(page: Page) -> None:
    draw(page, "three")
    wait_for(page, "three,")
    best = page.locator("#bars li.best")
    assert best.count() == 1
    share = page.inner_text("#verdict").partition(",")[2].strip()
    assert best.inner_text().split("\n") == ["3", share]
    assert best.get_attribute("aria-label") == f"three: {share}"
    assert page.inner_text("#time").endswith("ms for this run")
    shares = [float(text.split()[0]) for text in page.locator("#bars .share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.5), "each is rounded to a tenth"


def test_pictures_are_chosen(page: Page) -> None:
    pictures = sorted(PICTURES.glob("*.png"))
    assert len(pictures) == 10
    for picture in pictures:
        page.set_input_files("#file", picture)
        wait_for(page, f"{picture.stem.split('-')[0]},")


def test_a_picture_is_dropped(page: Page) -> None:
    picture = next(PICTURES.glob("four-*.png"))
    data = page.evaluate_handle(
        """async text => {
            const blob = await (await fetch('data:image/png;base64,' + text)).blob();
            const data = new DataTransfer();
            data.items.add(new File([blob], 'four.png', {type: 'image/png'}));
            return data;
        }""",
        base64.b64encode(picture.read_bytes()).decode(),
    )
    page.dispatch_event("#paper", "dragover", {"dataTransfer": data})
    assert page.locator(".pad.over").count() == 1
    page.dispatch_event("#paper", "drop", {"dataTransfer": data})
    wait_for(page, "four,")
    assert page.locator(".pad.over").count() == 0


def test_what_is_no_picture_is_said_to_be_none(page: Page, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "letter.png")
    wait_for(page, "letter.png is not a picture")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "paper"
    page.keyboard.press("Space")
    for _ in range(15):  # a vertical line
        page.keyboard.press("ArrowDown")
    wait_for(page, "one,")
    page.keyboard.press("Delete")
    wait_for(page, "Draw a digit")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"


def test_a_finger_draws_on_a_phone_without_scrolling_sideways(
    browser: Browser, server: tuple[str, subprocess.Popen[str]]
) -> None:
    phone = {"width": 320, "height": 640}
    with browser.new_context(viewport=phone, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(server[0])
        wait_for(page, "Draw a digit")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        page.tap("#paper")
        page.wait_for_function("document.querySelector('#bars .best') !== null")


CONTRAST = """element => {
    const channels = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const luminance = colour => channels(colour)
        .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = element => getComputedStyle(element).backgroundColor;
    let under = element;
    while (paper(under) === 'rgba(0, 0, 0, 0)') under = under.parentElement;
    const pair = [getComputedStyle(element).color, paper(under)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
"""The contrast ratio of the Web Content Accessibility Guidelines 2.2, which ask for 4.5."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for selector in ("h1", "header p", "#keys", "#clear", "#verdict", "#bars .share"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector


def test_the_schemes_differ_and_ink_stays_readable_in_the_dark(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    draw(page, "zero")
    wait_for(page, "zero,")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != light
    page.keyboard.press("Tab")  # nothing of the ink changes but its colour
    ink = page.locator("#paper").evaluate(
        "paper => [...paper.getContext('2d').getImageData(140, 45, 1, 1).data]"
    )
    assert ink[3] == 255
    assert min(ink[:3]) > 200


def test_without_its_server_the_page_still_reads(
    page: Page, server: tuple[str, subprocess.Popen[str]]
) -> None:
    page.wait_for_function("document.documentElement.dataset.kept !== undefined")
    server[1].kill()
    server[1].wait()
    page.reload()
    wait_for(page, "Draw a digit")
    draw(page, "two")
    wait_for(page, "two,")


def test_threads_would_be_possible(page: Page) -> None:
    assert page.evaluate("crossOriginIsolated") is True


def test_a_port_in_use_is_an_error_with_a_way_out(
    site: Path, server: tuple[str, subprocess.Popen[str]]
) -> None:
    port = server[0].rstrip("/").rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, PAGE / "serve.py", site, port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
