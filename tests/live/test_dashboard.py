"""The dashboard in a real Chromium: what a person sees, by eye, by keyboard, in the dark, and that
the page's own policy holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dmarc_milter.ledger.store.store import Store
from fakes.daemon import wait_for
from fakes.evaluations import evaluation
from fakes.stored import fill, week
from live.dashboard import SCHEMES, chromium, complaints, look, served

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
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def bars(browser: webdriver.Chrome) -> list[str]:
    """The colours of the chart's bars that can be seen."""
    script = """
        return [...document.querySelectorAll('.chart g rect[class^=bar-]')].filter(
            bar => bar.getBoundingClientRect().height > 1
        ).map(bar => getComputedStyle(bar).fill);
    """
    found: list[str] = browser.execute_script(script)  # type: ignore[no-untyped-call]
    return found


def test_the_overview_is_drawn_and_breaks_no_policy_of_its_own(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(f"{address}/?days=90")
    assert len(bars(browser)) == 14
    assert complaints(browser) == []


def test_the_chart_follows_the_dark(browser: webdriver.Chrome, address: str) -> None:
    grounds, colours = set(), set()
    for scheme in SCHEMES:
        look(browser, 1200, scheme)
        browser.get(f"{address}/?days=90")
        colours.add(tuple(bars(browser)))
        grounds.add(
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        )
    look(browser, 1200, "light")
    assert len(grounds) == len(colours) == 2


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
    charts = browser.find_elements(By.CSS_SELECTOR, ".plot svg")
    assert [chart.accessible_name.count("by day") for chart in charts] == [1]
    assert browser.find_elements(By.CSS_SELECTOR, "details table th[scope]")


def test_markup_in_a_decision_stays_text(browser: webdriver.Chrome, address: str) -> None:
    browser.get(f"{address}/decisions?key=ODD&days=90")
    assert MARKUP in browser.find_element(By.TAG_NAME, "main").text
    assert "owned" not in browser.title
    assert complaints(browser) == []


def test_a_table_breaks_no_word_of_ordinary_length(browser: webdriver.Chrome, address: str) -> None:
    """However narrow the window: a queue id, an address or a result broken over two lines cannot be
    read or searched for."""
    script = """
        document.querySelectorAll('details').forEach(details => { details.open = true; });
        return [...document.querySelectorAll('th, td')].flatMap(cell =>
            [...cell.childNodes]).filter(node => {
            const range = document.createRange();
            range.selectNodeContents(node);
            const text = node.textContent.trim();
            return text && text.length < 20 && !text.includes(' ') &&
                range.getClientRects().length > 1;
        }).map(node => node.textContent);
    """
    for width in (390, 820, 1280):
        look(browser, width, "light", 1400)
        for path in (
            "/?days=90",
            "/decisions?days=90",
            "/domains/legit.example?days=90",
            "/reports",
        ):
            browser.get(address + path)
            assert browser.find_elements(By.TAG_NAME, "th"), path
            assert browser.execute_script(script) == [], (path, width)
