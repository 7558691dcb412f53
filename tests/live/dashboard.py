"""`dmarc-milter web` and a real Chromium for the tests of the dashboard and its pictures, and what
they measure in a page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from selenium import webdriver

from fakes.daemon import free_port

WIDTHS = (390, 820, 1280, 1920)
"""CSS pixels: a phone, a tablet, a notebook, a large screen."""
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@contextmanager
def served(folder: Path, extra: str = "") -> Iterator[str]:
    """The address of a dashboard over the store and spool in `folder`. `extra`: more TOML."""
    port = free_port()
    config = folder / "c.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{folder}/reports.db"\nspool = "{folder}/spool.db"\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\n{extra}'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "dmarc_milter", "web", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert "dashboard at" in said, said
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={profile}", "--window-size=1200,1400",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(
        options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")
    )
    try:
        yield chrome
    finally:
        chrome.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the browser's console says: violations of the content policy, scripts that failed."""
    log: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]


def look(browser: webdriver.Chrome, width: int, scheme: Scheme, height: int = 900) -> None:
    """A window of this size and colour scheme."""
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def sticks_out(browser: webdriver.Chrome) -> int:
    """CSS pixels by which the page is wider than the window."""
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(browser.execute_script(script))  # type: ignore[no-untyped-call]


def unreachable(browser: webdriver.Chrome) -> list[str]:
    """Controls that Tab does not come to, in a page that was just opened. A hidden one counts not;
    the last of them is followed by the page's end."""
    script = """
        const controls = [...document.querySelectorAll('a[href], button, input, select, summary')]
            .filter(one => one.checkVisibility({visibilityProperty: true}));
        return controls.filter(one => one.tabIndex < 0 || one.disabled
            || one.getClientRects().length === 0).map(one => one.outerHTML.slice(0, 100));
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def small(browser: webdriver.Chrome) -> list[str]:
    """Controls that are lower than 44 CSS pixels (WCAG 2.2 2.5.5): in a card the first link covers
    it. Links inside a sentence are exempt."""
    script = """
        const area = one => getComputedStyle(one, '::after').position === 'absolute'
            ? one.closest('tr') : one;
        const alone = one => one.tagName !== 'A' || one.parentElement.tagName !== 'P'
            || one.parentElement.innerText.trim() === one.innerText.trim();
        return [...document.querySelectorAll('a[href], button, input, select, summary')]
            .filter(one => one.checkVisibility() && !one.closest('.skip') && alone(one)
                && area(one).getBoundingClientRect().height < 43.9)
            .map(one => one.outerHTML.slice(0, 100));
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def cut_off(browser: webdriver.Chrome) -> list[str]:
    """Boxes whose content is wider than they are: text that runs into its neighbour, and tables of
    which columns are out of sight."""
    script = """
        return [...document.querySelectorAll('.card a, .panel, .box, .light, .scroll, .periods,'
            + ' .top ul, .banner, .facts div, tbody td, tbody th')]
            .filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
            .map(one => `${one.className} ${one.scrollWidth} > ${one.clientWidth}: `
                + one.innerText.slice(0, 60));
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def nameless(browser: webdriver.Chrome) -> list[str]:
    """Controls and pictures without a name for a screen reader."""
    script = """
        const named = one => (one.getAttribute('aria-label') || one.innerText
            || [...(one.labels || [])].map(label => label.innerText).join('')).trim();
        return [...document.querySelectorAll('a[href], button, input, select, summary, [role=img],'
            + ' [role=region], nav')]
            .filter(one => one.checkVisibility() && !named(one)
                && !document.getElementById(one.getAttribute('aria-labelledby')))
            .map(one => one.outerHTML.slice(0, 100));
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def headings(browser: webdriver.Chrome) -> list[int]:
    """Their levels in the order of the page."""
    script = "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => +h.tagName[1])"
    found: list[int] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def pale(browser: webdriver.Chrome) -> list[str]:
    """Texts with less contrast to their ground than WCAG 2.2 1.4.3 (AA) asks for: 4.5, or 3 where
    they are large."""
    script = """
        const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
        const part = value => { value /= 255;
            return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
        const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
        const ground = one => {
            for (; one; one = one.parentElement) {
                const colour = parse(getComputedStyle(one).backgroundColor);
                if (colour.length === 3 || colour[3] === 1) { return colour; }
                if (colour[3] > 0) { throw new Error('half-transparent ground'); }
            }
            return parse(getComputedStyle(document.documentElement).colorScheme === 'dark'
                ? '0 0 0' : '255 255 255');
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = new Set();
        while (walker.nextNode()) {
            const one = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim() || !one.checkVisibility()
                || one.closest('svg, script')) { continue; }
            const style = getComputedStyle(one);
            const [a, b] = [light(parse(style.color)), light(ground(one))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            const size = parseFloat(style.fontSize);
            const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
            if (ratio < (large ? 3 : 4.5)) {
                found.add(`${ratio.toFixed(2)} ${one.className} ${one.textContent.slice(0, 40)}`);
            }
        }
        return [...found];
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found
