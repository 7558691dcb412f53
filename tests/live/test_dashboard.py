"""The dashboard in a real Chromium: what a person sees, by eye, by keyboard, in the dark, and that
the page's own policy holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dmarc_milter.ledger.store.store import Store
from fakes.daemon import free_port, wait_for
from fakes.evaluations import evaluation
from fakes.stored import fill, week

pytestmark = pytest.mark.live
MARKUP = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`dmarc-milter web` over a store with a week of mail."""
    folder = tmp_path_factory.mktemp("dashboard")
    store = Store.open(f"sqlite:///{folder}/reports.db")
    odd = evaluation("odd.example", queue_id="ODD")
    fill(
        folder / "spool.db",
        store,
        [*week(), replace(odd, verdict=replace(odd.verdict, decided_by=MARKUP))],
    )
    store.close()
    port = free_port()
    config = folder / "c.toml"
    config.write_text(
        f'[store]\nurl = "sqlite:///{folder}/reports.db"\n[web]\nlisten = "127.0.0.1:{port}"\n'
    )
    with subprocess.Popen(
        [sys.executable, "-m", "dmarc_milter", "web", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert "dashboard at" in server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        "--window-size=1200,1400",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(
        options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")
    )
    yield chrome
    chrome.quit()


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the browser's console says: violations of the content policy, scripts that failed."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] in ("SEVERE", "WARNING")
    ]  # type: ignore[no-untyped-call]


def drawn(browser: webdriver.Chrome) -> bool:
    """Whether every chart has coloured pixels."""
    script = """
        return [...document.querySelectorAll('canvas')].map(canvas => {
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width,
            canvas.height).data;
            return data.some((value, index) => index % 4 === 3 && value > 0);
        });
    """
    found = browser.execute_script(script)
    return bool(found) and all(found)


def test_the_overview_is_drawn_and_breaks_no_policy_of_its_own(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(f"{address}/?days=90")
    assert wait_for(lambda: drawn(browser))
    assert len(browser.find_elements(By.TAG_NAME, "canvas")) == 2
    assert complaints(browser) == []


def test_the_charts_follow_the_dark(browser: webdriver.Chrome, address: str) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        browser.get(f"{address}/?days=90")
        assert wait_for(lambda: drawn(browser))
        colours[scheme] = browser.find_element(By.TAG_NAME, "body").value_of_css_property(
            "background-color"
        )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colours["light"] != colours["dark"]


def test_a_decision_is_reached_by_keyboard_alone(browser: webdriver.Chrome, address: str) -> None:
    """Skip link first, then the navigation, then the search form, then the row."""
    browser.get(f"{address}/decisions?days=90")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    browser.find_element(By.ID, "key").send_keys("4Q60000", Keys.ENTER)
    assert wait_for(lambda: len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == 1)
    browser.find_element(By.CSS_SELECTOR, "tbody a").send_keys(Keys.ENTER)
    assert wait_for(
        lambda: "What would change it" in browser.find_element(By.TAG_NAME, "main").text
    )


def test_every_field_and_chart_has_a_name_for_a_screen_reader(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(f"{address}/decisions")
    for field in browser.find_elements(By.CSS_SELECTOR, "main input, main select"):
        assert field.accessible_name
    browser.get(f"{address}/?days=90")
    for canvas in browser.find_elements(By.TAG_NAME, "canvas"):
        assert "by day" in canvas.accessible_name
    assert browser.find_elements(By.CSS_SELECTOR, "details table th[scope]")


def test_markup_in_a_decision_stays_text(browser: webdriver.Chrome, address: str) -> None:
    browser.get(f"{address}/decisions?key=ODD&days=90")
    assert MARKUP in browser.find_element(By.TAG_NAME, "main").text
    assert "owned" not in browser.title
    assert complaints(browser) == []


def test_pages_fit_a_narrow_window(browser: webdriver.Chrome, address: str) -> None:
    """Tables scroll inside; the page does not."""
    browser.set_window_size(500, 900)
    for path in ("/?days=90", "/decisions?days=90", "/domains/legit.example?days=90", "/health"):
        browser.get(address + path)
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, path
    browser.set_window_size(1200, 1400)


def test_a_table_breaks_no_word_of_ordinary_length(browser: webdriver.Chrome, address: str) -> None:
    """However narrow the window: a queue id, an address or a result broken over two lines cannot be
    read or searched for."""
    script = """
        document.querySelectorAll('details').forEach(details => { details.open = true; });
        return [...document.querySelectorAll('th, td')].flatMap(cell =>
            [...cell.childNodes]).filter(node => {
            const range = document.createRange();
            range.selectNodeContents(node);
            return node.textContent.length < 20 && !node.textContent.trim().includes(' ') &&
                range.getClientRects().length > 1;
        }).map(node => node.textContent);
    """
    for width in (500, 1200):
        browser.set_window_size(width, 1400)
        for path in (
            "/?days=90",
            "/decisions?days=90",
            "/domains/legit.example?days=90",
            "/reports",
        ):
            browser.get(address + path)
            assert browser.find_elements(By.TAG_NAME, "th"), path
            assert browser.execute_script(script) == [], (path, width)


def test_screenshots_for_the_documents(
    browser: webdriver.Chrome, address: str, tmp_path: Path
) -> None:
    """The pictures in docs/ come from here; here they only have to be pictures."""
    browser.get(f"{address}/?days=90")
    assert wait_for(lambda: drawn(browser))
    assert browser.save_screenshot(str(tmp_path / "overview.png"))
    assert (tmp_path / "overview.png").stat().st_size > 20_000
