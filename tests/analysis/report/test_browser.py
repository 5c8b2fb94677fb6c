"""The page in a real browser, where there is one."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed, which drives the browser")

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in found:
        pytest.skip("there is no chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    yield driver
    driver.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_no_error_and_nothing_beyond_the_edge(browser, report, tmp_path, width, scheme):
    report.write(tmp_path / "report.html")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get((tmp_path / "report.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    whole = "const page = document.documentElement; return [innerWidth, page.scrollWidth <= page.clientWidth]"
    assert browser.execute_script(whole) == [width, True]
    beyond = """return [...document.querySelectorAll('body *')].filter(one =>
        one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll')).map(one => one.outerHTML)"""
    assert browser.execute_script(beyond) == []
    drawn = "return [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width)"
    assert all(300 < one <= width for one in browser.execute_script(drawn))
    assert [one for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []
    page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert page == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 17, 21)"}[scheme]
