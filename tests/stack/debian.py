"""Where this machine gets Debian's packages from: its own sources say so."""

from __future__ import annotations

import functools
import os
import subprocess


@functools.cache
def mirror() -> str:
    """TANDEM_DEBIAN_MIRROR, else the first mirror of the whole archive that apt knows."""
    given = os.environ.get("TANDEM_DEBIAN_MIRROR")
    if given:
        return given
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    sites = list(dict.fromkeys(listed.stdout.split()))
    whole = [site for site in sites if "security" not in site]
    if not whole:
        raise RuntimeError("apt knows no Debian mirror; set TANDEM_DEBIAN_MIRROR")
    return whole[0].rstrip("/")
