"""A page opened in Chromium, without a window: what its console says, and what stands on it once its script has run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROBE = """
<pre id="probe"></pre><script>
addEventListener("load", () => {
  const box = (one) => { const b = one.getBoundingClientRect(); return [b.width, b.height]; };
  const all = (what) => [...document.querySelectorAll(what)];
  const seen = (one) => one.checkVisibility();
  const before = all("img[data-slider]").map((one) => one.src);
  for (const one of all("input[data-slider]")) { one.value = one.max; one.dispatchEvent(new Event("input")); }
  document.getElementById("probe").textContent = JSON.stringify({
    figures: all("figure").map((one) => ({
      drawn: all("svg, img").filter((inside) => one.contains(inside) && seen(inside)).map(box),
      text: one.innerText,
    })),
    marks: all("figure svg").map((one) => one.querySelectorAll("polyline, circle, rect, path").length),
    images: all("img").map((one) => [one.naturalWidth, one.naturalHeight]),
    moved: all("img[data-slider]").map((one, at) => one.src !== before[at]),
    numbers: all("[data-number]").map((one) => one.textContent),
    links: all("a[href^='#']").map((one) => document.querySelector(one.getAttribute("href")) !== null),
    outside: all("[src], link[href]").map((one) => one.src || one.href).filter((one) => !one.startsWith("data:")),
    width: [document.documentElement.scrollWidth, innerWidth],
    paper: getComputedStyle(document.body).backgroundColor,
    text: document.body.innerText,
  });
});
</script></body>"""


def chromium():
    """Return the browser; without one, a test of a user's machine is skipped, and says so, but CI's fails."""
    return _found(NAMES, "Chromium", "chromium")


def driver():
    """Return what drives the browser, as :func:`chromium` returns that."""
    return _found(("chromedriver",), "driver of Chromium", "chromium-driver")


def _found(names, what, package):
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"There is no {what}, and in CI this test is never skipped: `apt-get install {package}`.")
    if found is None:
        pytest.skip(f"There is no {what} here to open the page in: `apt-get install {package}`.")
    return found


def opened(page, place, width=1200, dark=False):
    """Open a page; return what stands on it, with what its console said."""
    probed = place / f"{page.stem}-{width}.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place / 'profile'}"]
    command += ["--enable-logging=stderr", "--v=0", f"--window-size={width},900", "--virtual-time-budget=4000"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", probed.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = re.search(r'<pre id="probe">(.+?)</pre>', ran.stdout, re.DOTALL)
    assert told is not None, f"The page's script did not get to its end.\n{ran.stderr}"
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(unescape(told.group(1))), "console": console}
