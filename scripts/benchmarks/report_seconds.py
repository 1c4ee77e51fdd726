"""Measure how long HTML reports take to open in headless Chromium: from navigation until the first view is drawn.

    python -m scripts.benchmarks.report_seconds REPORT.html... [--times 5]

Commands such as `onnxgain compare MODEL... --report REPORT.html` write the reports. The browser is started once; the
reports are opened in turns, each time in a new window.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from tests.support.browser import Browser, why_none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    if why_none() is not None:
        sys.exit(why_none())
    seconds: dict[Path, list[float]] = {path: [] for path in arguments.reports}
    with Browser() as browser:
        for _ in range(arguments.times):
            for path, measured in seconds.items():
                measured.append(browser.open(path.resolve()).seconds)
    for path, measured in seconds.items():
        size = path.stat().st_size / 1e6
        low, middle, high = min(measured), statistics.median(measured), max(measured)
        print(f"{path}  {size:.2f} MB  median {middle:.2f} s, {low:.2f} to {high:.2f} s")


if __name__ == "__main__":
    main()
