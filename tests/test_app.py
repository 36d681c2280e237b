"""The page in headless Chromium: upload, result, maps, a bad file, two users, a phone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cardiomegaly import app

pytestmark = pytest.mark.slow
WAIT = 60  # seconds at most


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the server."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(onnx_file: Path, kept: Path) -> Iterator[str]:
    """Of a page that is served by the command, on a free port; nothing is kept after it."""
    pytest.importorskip("gradio", reason="the extra serve is not installed")
    command = [sys.executable, "-u", "-m", "cardiomegaly.app", f"model={onnx_file}", "port=0"]
    environment = os.environ | {"TMPDIR": str(kept)}
    server = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail(said)
    yield found[0]
    server.terminate()
    server.wait(WAIT)
    server.stdout.close()
    assert not list(kept.rglob("*"))


@pytest.fixture
def browsers() -> Iterator[Any]:
    """Opens Chromium windows of a width, which note what they request."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    opened = []

    def start(address: str, width: int = 1280) -> Any:
        options = selenium.ChromeOptions()
        options.binary_location = chromium
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        browser = selenium.Chrome(options, selenium.ChromeService(driver))
        opened.append(browser)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(address)
        return browser

    yield start
    for browser in opened:
        browser.quit()


def wait_for(browser: Any, pattern: str) -> str:
    """The page's text as soon as it holds a pattern."""
    from selenium.webdriver.support.ui import WebDriverWait

    def text(current: Any) -> str:
        found: str = current.execute_script("return document.body ? document.body.innerText : ''")
        return found if re.search(pattern, found) else ""

    return WebDriverWait(browser, WAIT).until(text)


def upload(browser: Any, *paths: Path) -> None:
    wait_for(browser, "Threshold")
    field = browser.find_element("css selector", "input[type=file]")
    field.send_keys("\n".join(map(str, paths)))


def slide(browser: Any, key: str) -> None:
    """Move the threshold to an end by the keyboard."""
    from selenium.webdriver.common.keys import Keys

    handle = browser.find_element("css selector", "#threshold input[type=range]")
    handle.send_keys(getattr(Keys, key))


def chest(folder: Path, phantom_root: Path) -> Path:
    return Path(shutil.copy(sorted((phantom_root / "images").iterdir())[0], folder / "chest.png"))


def test_an_image_is_uploaded_and_read(
    address: str, browsers: Any, phantom_root: Path, tmp_path: Path
) -> None:
    browser = browsers(address)
    assert "not for clinical use" in wait_for(browser, "Threshold").lower()
    upload(browser, chest(tmp_path, phantom_root))
    wait_for(browser, r"chest\.png: (no )?cardiomegaly \(probability")
    wait_for(browser, r"contribution, \S+ to \S+: chest\.png")
    wait_for(browser, "64 x 64 pixels, 8 bits, PNG, view unknown")
    assert "What it must not be used for" in browser.page_source
    requests = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in requests if m["method"].endswith("WillBeSent")]
    assert urls and not [url for url in urls if not url.startswith((address, "data:", "blob:"))]


def test_the_threshold_decides(
    address: str, browsers: Any, phantom_root: Path, tmp_path: Path
) -> None:
    browser = browsers(address)
    upload(browser, chest(tmp_path, phantom_root))
    wait_for(browser, r"contribution, \S+ to \S+: chest\.png")
    for key, decision in (("HOME", "cardiomegaly"), ("END", "no cardiomegaly")):
        slide(browser, key)
        wait_for(browser, rf"chest\.png: {decision} \(probability")


def test_unfit_and_broken_files_are_refused(address: str, browsers: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    (tmp_path / "text.png").write_text("hello")
    browser = browsers(address)
    upload(browser, tmp_path / "noise.png", tmp_path / "text.png")
    said = wait_for(browser, r"text\.png: refused, text\.png is not a PNG")
    assert re.search(r"noise\.png: refused, no chest radiograph", said)
    assert "contribution" not in said


def test_two_users_at_once_and_a_phone(
    address: str, browsers: Any, phantom_root: Path, tmp_path: Path
) -> None:
    one, phone = browsers(address), browsers(address, 390)
    path = chest(tmp_path, phantom_root)
    (tmp_path / "text.png").write_text("hello")
    upload(one, path)
    upload(phone, tmp_path / "text.png")
    assert "text.png" not in wait_for(one, r"chest\.png: (no )?cardiomegaly")
    assert "chest.png" not in wait_for(phone, r"text\.png: refused")
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390


def test_the_api_is_usable_from_a_script(address: str, phantom_root: Path, tmp_path: Path) -> None:
    client = pytest.importorskip("gradio_client", reason="the extra serve is not installed")
    path = chest(tmp_path, phantom_root)
    api = client.Client(address, verbose=False, download_files=False)
    _, text = api.predict([client.handle_file(str(path))], 0.0, 0.5, api_name="/predict")
    api.close()
    assert "chest.png**: cardiomegaly (probability" in text


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["model=absent.onnx"]) == 2
    assert "absent.onnx does not exist" in capsys.readouterr().err
