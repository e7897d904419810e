"""The live page in a real headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from served_rig import Served, eventually, served

pytestmark = pytest.mark.local
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        lacking = "a browser (chromium)" if browser is None else "chromedriver (chromium-driver)"
        pytest.skip(f"needs {lacking}: make setup as root installs it on Debian")
    options = ChromeOptions()
    options.binary_location = browser
    home: Path = tmp_path_factory.mktemp("chromium")
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-proxy-server"):
        options.add_argument(f"--{word}")
    options.add_argument(f"--user-data-dir={home}")
    options.add_argument("--window-size=1200,1600")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = Chrome(options=options, service=Driver(driver))
    made.set_page_load_timeout(30)
    try:
        yield made
    finally:
        made.quit()


@pytest.fixture
def simulator() -> Iterator[Served]:
    with served() as made:
        yield made


@pytest.fixture
def page(chrome: Chrome, simulator: Served) -> Chrome:
    """Loaded, with one volume, and live."""
    assert simulator.create("first").status_code == 200
    chrome.get(simulator.url)
    eventually(lambda: text(chrome, "live").startswith("Live"), "live")
    return chrome


def text(page: Chrome, element: str) -> str:
    """What the element of this id shows."""
    return str(page.execute_script("return document.getElementById(arguments[0])?.innerText ?? ''", element))


def errors(page: Chrome) -> list[Any]:
    return [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]


def test_it_shows_the_cluster_and_then_what_happens_without_being_loaded_again(page: Chrome, simulator: Served) -> None:
    assert page.title == "splab: StorPool simulator" and "first" in text(page, "objects")
    assert "operational" in text(page, "cluster") and "remembered, not enforced" in text(page, "cluster")
    assert "/ctrl/1.0/VolumeCreate" in text(page, "calls")
    page.execute_script("window.loadedOnce = true")
    simulator.create("second")
    simulator.ask("POST", "VolumesReassign", [{"volume": "second", "rw": [2]}])
    simulator.ask("GET", "Volume/<img src=x onerror=alert(1)>")
    eventually(lambda: "onerror" in text(page, "calls"), "in the log")
    rows = text(page, "calls").splitlines()
    assert "400 invalidParam" in rows[0] and "VolumesReassign" in rows[1] and '"name":"second"' in rows[2]
    eventually(lambda: "client 2 (rw)" in text(page, "objects"), "in the tree")
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert page.execute_script("return window.loadedOnce") is True
    assert errors(page) == []


def test_a_click_switches_a_fault_on_and_another_lifts_it(page: Chrome, simulator: Served) -> None:
    Select(page.find_element(By.ID, "kind")).select_by_visible_text("refuse")
    Select(page.find_element(By.ID, "call")).select_by_visible_text("VolumeDelete")
    page.find_element(By.ID, "object").send_keys("first")
    page.find_element(By.ID, "count").send_keys("5")
    click(page, "Switch on")
    eventually(lambda: "refuse (1)" in text(page, "faults"), "shown")
    answer = simulator.ask("POST", "VolumeDelete/first")
    assert (answer.status_code, answer.json()["error"]["name"]) == (409, "busy")
    eventually(lambda: "refuse (1)" in text(page, "calls"), "in the log")
    click(page, "Lift")
    eventually(lambda: "No fault is in force" in text(page, "faults"), "lifted")
    assert simulator.ask("POST", "VolumeDelete/first").status_code == 200
    assert errors(page) == []


def click(page: Chrome, label: str) -> None:
    def clicked() -> bool:
        try:
            page.find_element(By.XPATH, f"//button[normalize-space()='{label}']").click()
        except StaleElementReferenceException:  # a live part was replaced meanwhile
            return False
        return True

    eventually(clicked, "clicked")


def test_without_scripts_it_shows_the_same_and_its_forms_work(chrome: Chrome, simulator: Served) -> None:
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        simulator.create("first")
        chrome.get(simulator.url)
        source = chrome.page_source
        assert "first" in source and "/ctrl/1.0/VolumeCreate" in source and "Load the page again" in source
        click(chrome, "Switch on")
        # Without scripts a click answers before the form it sends is answered.
        eventually(lambda: simulator.faults() != [], "switched on")
        assert simulator.create("second").status_code == 409
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_says_when_the_simulator_is_gone(page: Chrome, simulator: Served) -> None:
    simulator.stop()
    eventually(lambda: text(page, "live").startswith("Not live"), "told")


UNLABELLED = """
return [...document.querySelectorAll("input:not([type=hidden]), select, button")]
  .filter((field) => !(field.labels?.length || field.ariaLabel || (field.type === "submit" && field.innerText.trim())))
  .map((field) => field.outerHTML);
"""
LEVELS = "return [...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))"
BARE_TABLES = """
return [...document.querySelectorAll("table")]
  .filter((table) => !table.caption || [...table.querySelectorAll("th")].some((cell) => !cell.scope)).length
"""
PALE = """
const parsed = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, alpha = 1] = parsed(getComputedStyle(at).backgroundColor);
    if (alpha > 0) return [red, green, blue];
  }
  return [255, 255, 255];
};
const light = (colour) => {
  const [red, green, blue] = colour.map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const pale = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  const [one, other] = [light(parsed(getComputedStyle(element).color).slice(0, 3)), light(behind(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) pale.push(`${texts.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
}
return pale;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everyone(page: Chrome, simulator: Served, scheme: str) -> None:
    """Labels, headings in order, tables that say what they hold, and contrast (WCAG 1.4.3), in both colour schemes."""
    simulator.ask("POST", "/_sim/client/2", {"running": False})
    simulator.fault(kind="refuse", call="VolumesList", error="busy")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.get(simulator.url)
    click(page, "Switch on")
    eventually(lambda: "refuse (2)" in text(page, "faults"), "switched on")
    page.find_element(By.ID, "seconds").send_keys("soon")
    Select(page.find_element(By.ID, "kind")).select_by_visible_text("delay")
    click(page, "Switch on")
    eventually(lambda: page.find_elements(By.CSS_SELECTOR, "[role=alert]"), "refused")
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(251, 251, 250)", "dark": "rgb(20, 23, 27)"}[scheme]
    assert page.execute_script(UNLABELLED) == []
    levels = page.execute_script(LEVELS)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.execute_script(BARE_TABLES) == 0
    assert page.execute_script(PALE) == []
    assert page.execute_script("return document.documentElement.lang") == "en"
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth") is True
