"""The page in a real browser, if one is installed."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executables = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in executables:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = executables[0]
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executables[1]))
    yield driver
    driver.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_has_no_error_and_fits_the_window(browser, full_report, tmp_path, width, scheme):
    full_report.write(tmp_path / "report.html")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get((tmp_path / "report.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
    whole = "const page = document.documentElement; return [innerWidth, page.scrollWidth <= page.clientWidth]"
    assert browser.execute_script(whole) == [width, True]
    beyond = """return [...document.querySelectorAll('body *')]
        .filter(element => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.scroll'))
        .map(element => element.outerHTML)"""
    assert browser.execute_script(beyond) == []
    drawn = "return [...document.querySelectorAll('svg')].map(element => element.getBoundingClientRect().width)"
    assert all(300 < drawn_width <= width for drawn_width in browser.execute_script(drawn))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert page == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 17, 21)"}[scheme]
