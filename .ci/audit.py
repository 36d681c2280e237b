#!/usr/bin/env python3
"""Ask pip-audit whether a pinned dependency has a known vulnerability; exit 1 if so.

Where nobody can be asked (no network, or an index that tells nothing of vulnerabilities) the audit
is skipped, and says so.
"""

import json
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
COMMAND = [
    sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), "--no-deps",
    "--disable-pip", "--progress-spinner", "off", "--format", "json",
]  # fmt: skip


def verdict(report: str, errors: str) -> tuple[int, str]:
    """Exit code and message for what pip-audit wrote."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:
        return 0, f"audit skipped, cannot ask: {(errors.splitlines() or ['no answer'])[-1][:100]}"
    known = [package for package in packages if "vulns" in package]
    if not known:
        return 0, f"audit skipped: nothing is known there of all {len(packages)} packages"
    weak = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        for package in known for flaw in package["vulns"]
    ]  # fmt: skip
    return bool(weak), "\n".join(weak) or f"audit: {len(known)} of {len(packages)} packages, sound"


if __name__ == "__main__":
    answer = subprocess.run(COMMAND, capture_output=True, text=True, check=False)  # noqa: S603  (our own words)
    code, message = verdict(answer.stdout, answer.stderr)
    print(message)
    sys.exit(code)
