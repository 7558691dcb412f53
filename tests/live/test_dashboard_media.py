"""The dashboard where the reader has other eyes or hands than its author: on paper, in colours of
his own choice, without motion, enlarged, by keyboard alone, by a screen reader, in another time
zone, with the Back button and two tabs. In a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dmarc_milter.ledger.store.store import Store
from fakes.daemon import wait_for
from fakes.evaluations import evaluation
from fakes.stored import fill, week
from live.dashboard import chromium, look, served, sticks_out

pytestmark = pytest.mark.live
TOKEN = "0123456789abcdef"
PAGES = (
    *("/?days=90", "/decisions?days=90", "/domains?days=90&failing=1", "/impact?days=90"),
    *("/reports", "/health", "/domains/legit.example?days=90", "/nowhere"),
)
BEFORE_MIDNIGHT = datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("media")
    store = Store.open(f"sqlite:///{made}/reports.db")
    late = replace(evaluation("late.example", queue_id="LATE"), at=BEFORE_MIDNIGHT)
    fill(made / "spool.db", store, [*week(), late])
    store.close()
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def _as_usual(browser: webdriver.Chrome) -> Iterator[None]:
    look(browser, 1280, "light")
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def media(browser: webdriver.Chrome, name: str = "", **features: str) -> None:
    told = [{"name": key.replace("_", "-"), "value": value} for key, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": name, "features": told})


def asked(browser: webdriver.Chrome, script: str) -> Any:
    return browser.execute_script(script)  # type: ignore[no-untyped-call]


def decision(browser: webdriver.Chrome, address: str) -> str:
    browser.get(f"{address}/decisions?days=90&disposition=refused")
    return str(browser.find_element(By.CSS_SELECTOR, "tbody a").get_attribute("href"))


def pages(browser: webdriver.Chrome, address: str) -> list[str]:
    return [*(address + path for path in PAGES), decision(browser, address)]


def test_every_page_can_be_printed(browser: webdriver.Chrome, address: str) -> None:
    """Dark letters on white, whatever the screen has; nothing to click; as wide as the paper; no
    fold stays closed."""
    for page in pages(browser, address):
        browser.get(page)
        look(browser, 700, "dark")  # A4 without its margins
        media(browser, "print", prefers_color_scheme="dark")
        found = asked(
            browser,
            """
            const seen = one => one.checkVisibility({contentVisibilityAuto: true});
            return {
                ground: getComputedStyle(document.body).backgroundColor,
                letters: getComputedStyle(document.body).color,
                clickable: [...document.querySelectorAll('button, input, nav a, .skip')]
                    .filter(seen).map(one => one.outerHTML.slice(0, 80)),
                heading: document.querySelector('h1').innerText,
            };
            """,
        )
        assert found["ground"] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), page
        assert found["letters"] == "rgb(0, 0, 0)", page
        assert found["clickable"] == [], page
        assert found["heading"], page
        assert sticks_out(browser) <= 0, page
        assert len(browser.print_page()) > 1000, page


def test_what_colours_say_is_said_without_them(browser: webdriver.Chrome, address: str) -> None:
    """Forced colours: badges, banner and the chosen link have a line, and the chart its own."""
    for page in pages(browser, address):
        browser.get(page)
        media(browser, forced_colors="active")
        bare = asked(
            browser,
            """
            const line = one => parseFloat(getComputedStyle(one).borderTopWidth) > 0;
            const round = one => getComputedStyle(one).outlineStyle !== 'none';
            return [
                ...[...document.querySelectorAll('.badge, .banner, .mode')]
                    .filter(one => !line(one)),
                ...[...document.querySelectorAll('nav a[aria-current]')]
                    .filter(one => !round(one)),
            ].filter(one => one.checkVisibility()).map(one => one.outerHTML.slice(0, 100));
            """,
        )
        assert bare == [], page
    browser.get(f"{address}/?days=90")
    media(browser, forced_colors="active")
    fills = asked(
        browser,
        "return [...document.querySelectorAll('.chart g rect[class^=bar-]')]"
        ".map(bar => getComputedStyle(bar).fill)",
    )
    assert len(set(fills)) > 1


def test_nothing_moves(browser: webdriver.Chrome, address: str) -> None:
    """So nobody has to ask for less of it."""
    for page in pages(browser, address):
        browser.get(page)
        media(browser, prefers_reduced_motion="reduce")
        assert asked(browser, "return document.getAnimations().length") == 0
        moving = asked(
            browser,
            """
            return [...document.querySelectorAll('*')].map(one => getComputedStyle(one))
                .filter(style => parseFloat(style.transitionDuration) > 0
                    || style.animationName !== 'none' || style.scrollBehavior === 'smooth').length
            """,
        )
        assert moving == 0, page


def test_text_of_twice_the_size_stays_on_the_page(browser: webdriver.Chrome, address: str) -> None:
    """WCAG 2.2 1.4.4, by the zoom of the window and of the letters alone."""
    for page in pages(browser, address):
        metrics = {"width": 640, "height": 450, "deviceScaleFactor": 2, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page)
        assert sticks_out(browser) <= 0, page
        look(browser, 1280, "light")
        asked(browser, "document.documentElement.style.fontSize = '200%'")
        assert sticks_out(browser) <= 0, page


def test_every_page_is_walked_by_the_tab_key(browser: webdriver.Chrome, address: str) -> None:
    """From the first control to the last and out of the page again: focus is seen at each, and
    nothing keeps it."""
    for page in pages(browser, address):
        browser.get(page)
        controls = asked(
            browser,
            "return [...document.querySelectorAll('a[href], button, input, select, summary,"
            ' [tabindex="0"]\')].filter(one => one.checkVisibility()).length',
        )
        seen = []
        for _ in range(min(controls, 60) + 1):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            one = browser.switch_to.active_element
            if one.tag_name == "body":
                break
            assert one.id not in seen, (page, one.get_attribute("outerHTML"))
            seen.append(one.id)
            assert one.value_of_css_property("outline-style") == "solid", (
                page,
                one.get_attribute("outerHTML"),
            )
        assert len(seen) >= min(controls, 60), page


def test_the_skip_link_leads_past_the_navigation(browser: webdriver.Chrome, address: str) -> None:
    for page in pages(browser, address):
        browser.get(page)
        browser.switch_to.active_element.send_keys(Keys.TAB)
        link = browser.switch_to.active_element
        assert link.text == "Skip to the content"
        assert link.rect["x"] >= 0, "it is seen when it has the focus"
        link.send_keys(Keys.ENTER)
        assert asked(browser, "return document.activeElement.id") == "main"
        browser.switch_to.active_element.send_keys(Keys.TAB)
        inside = "return document.querySelector('main').contains(document.activeElement)"
        outside = "return !document.querySelector('header').contains(document.activeElement)"
        assert asked(browser, inside) or asked(browser, outside), page


ROLES = ("link", "button", "textbox", "combobox", "searchbox", "img", "image", "navigation",
         "region", "table", "search", "DisclosureTriangle")  # fmt: skip


def test_the_accessibility_tree_names_everything_that_can_be_used(
    browser: webdriver.Chrome, address: str
) -> None:
    """What a screen reader is given (Chromium's own tree): every control, region and picture has a
    name; landmarks of one kind differ by name; table cells belong to rows."""
    browser.execute_cdp_cmd("Accessibility.enable", {})
    for page in pages(browser, address):
        browser.get(page)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        nodes = [
            (one["role"]["value"], one.get("name", {}).get("value", "").strip())
            for one in tree
            if not one.get("ignored")
        ]
        needed = [role for role, name in nodes if role in ROLES and role != "table" and not name]
        assert needed == ["search"] * needed.count("search"), (page, needed)
        for role in ("navigation", "region"):
            names = [name for found, name in nodes if found == role]
            assert len(names) == len(set(names)), (page, role, names)
        assert [role for role, _ in nodes].count("main") == 1, page
        titles = [name for role, name in nodes if role == "RootWebArea"]
        assert titles[0].endswith("dmarc-milter")
    browser.execute_cdp_cmd("Accessibility.disable", {})


def test_another_time_zone_changes_no_date(browser: webdriver.Chrome, address: str) -> None:
    """All times are UTC: one second before midnight is that day, wherever the reader sits."""
    seen = set()
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"):
        browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})
        browser.get(f"{address}/decisions?days=90&key=LATE")
        seen.add(browser.find_element(By.CSS_SELECTOR, "tbody td.when").text)
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})
    assert seen == {"2026-11-20 23:59:59"}
    assert "UTC" in browser.find_element(By.TAG_NAME, "footer").text


def test_the_back_button_returns_to_the_search(browser: webdriver.Chrome, address: str) -> None:
    """With all its fields."""
    browser.get(f"{address}/decisions?days=90&author_domain=legit.example&disposition=refused")
    rows = browser.find_element(By.CSS_SELECTOR, "tbody").text
    browser.find_element(By.CSS_SELECTOR, "tbody a").click()
    assert wait_for(lambda: "/decisions/" in browser.current_url)
    browser.back()
    assert wait_for(lambda: "author_domain=legit.example" in browser.current_url)
    assert browser.find_element(By.ID, "author_domain").get_attribute("value") == "legit.example"
    assert browser.find_element(By.ID, "disposition").get_attribute("value") == "refused"
    assert browser.find_element(By.CSS_SELECTOR, "tbody").text == rows


def test_two_tabs_share_a_session_and_a_new_one_returns_to_its_page(
    browser: webdriver.Chrome, folder: Path, tmp_path: Path
) -> None:
    """The server is started again in between: the page that was asked for comes after the token."""
    for name in ("reports.db", "spool.db"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    first = browser.current_window_handle
    for _ in range(2):
        with served(tmp_path, f'token_file = "{tmp_path}/token"\n') as here:
            browser.get(f"{here}/domains?days=90&failing=1")
            browser.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
            assert wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, "[role=alert]"))
            browser.find_element(By.ID, "token").send_keys(TOKEN, Keys.ENTER)
            assert wait_for(lambda: re.search(r"failing=1$", browser.current_url))
            assert "login" not in browser.current_url
            browser.switch_to.new_window("tab")
            browser.get(f"{here}/decisions?days=90")
            assert browser.find_elements(By.CSS_SELECTOR, "tbody tr")
            browser.close()
            browser.switch_to.window(first)
