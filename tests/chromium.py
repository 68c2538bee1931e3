"""The Chromium that the tests of the page and its screenshot use."""

import shutil
from typing import Final

from playwright.sync_api import Browser, Playwright

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def launch(playwright: Playwright) -> Browser:
    """Start a headless Chromium; close it at the end."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
