"""Stand-in images under the official names, for a machine that reaches no image registry.

Owns: two Debian bases (debootstrap piped into `docker import`), and one small image on them for
each name in compose.yaml. The programs are real: nginx, Redis, Prometheus and Alertmanager from
Debian testing, Python 3.11 from Debian 12. Grafana is a page that says it is well; the engines'
Python and vLLM are the machine's own, mounted by overlay.yaml.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.stack.debian import mirror
from tests.stack.docker_engine import KEYRING, DockerEngine

BASES = {
    "standin/testing": (
        "testing",
        "ca-certificates,curl,wget,procps,python3-minimal,nginx,redis-server,prometheus,"
        "prometheus-alertmanager",
    ),
    "standin/bookworm": (
        "bookworm",
        "ca-certificates,curl,wget,procps,python3,python3-venv,libgomp1,libnuma1,libstdc++6",
    ),
}
GRAFANA = """
import http.server
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"database":"ok"}')
http.server.ThreadingHTTPServer(("", 3000), Well).serve_forever()
"""


@dataclass(frozen=True)
class StandIn:
    base: str
    steps: str
    files: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> str:
        """Changes with the definition, so that an old cache is not taken for the new image."""
        return hashlib.sha256(repr((self, BASES[self.base])).encode()).hexdigest()[:16]


STAND_INS = {
    "nginx": StandIn("standin/testing", "RUN mkdir -p /var/log/nginx /var/lib/nginx\n"),
    "python": StandIn("standin/bookworm", "RUN ln -sf python3 /usr/bin/python\n"),
    "redis": StandIn(
        "standin/testing",
        "RUN userdel redis; useradd --system --uid 999 --user-group redis\n"
        "RUN mkdir -p /data && chown redis /data\n",
    ),
    "prom/prometheus": StandIn(
        "standin/testing",
        "RUN mkdir -p /prometheus && chown 65534:65534 /prometheus\n",
    ),
    "prom/alertmanager": StandIn(
        "standin/testing",
        "RUN ln -s prometheus-alertmanager /usr/bin/alertmanager\n"
        "RUN mkdir -p /alertmanager && chown 65534:65534 /alertmanager\n",
    ),
    "grafana/grafana": StandIn(
        "standin/bookworm",
        "COPY grafana.py /grafana.py\nRUN mkdir -p /var/lib/grafana && chown 472 /var/lib/grafana\n"
        'ENTRYPOINT ["python3", "/grafana.py"]\n',
        (("grafana.py", GRAFANA),),
    ),
    "vllm/vllm-openai-cpu": StandIn("standin/bookworm", ""),
}


def ensure(engine: DockerEngine, wanted: list[str]) -> None:
    """Build what is missing of the images that the appliance names."""
    for image in wanted:
        name = image.rpartition(":")[0]
        if name not in STAND_INS:
            continue
        label = f"label=tandem.stand-in={STAND_INS[name].version}"
        if not engine.run("images", "--quiet", "--filter", label, image).strip():
            _build(engine, image, STAND_INS[name])


def _build(engine: DockerEngine, image: str, stand_in: StandIn) -> None:
    if not engine.run("images", "--quiet", stand_in.base).strip():
        _import_base(engine, stand_in.base)
    context = engine.folder / "build"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    label = f"LABEL tandem.stand-in={stand_in.version}"
    (context / "Dockerfile").write_text(f"FROM {stand_in.base}\n{label}\n{stand_in.steps}")
    for name, text in stand_in.files:
        (context / name).write_text(text)
    engine.run("build", "--tag", image, str(context), timeout=300)


def _import_base(engine: DockerEngine, base: str) -> None:
    release, packages = BASES[base]
    tree = engine.folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--include={packages}",
             release, str(tree), mirror()],
            check=True, env=engine.environment, stdout=sys.stderr, timeout=600,
        )  # fmt: skip
        for package in (tree / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        pack = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "-", base],
            check=True, stdin=pack.stdout, env=engine.environment, timeout=300,
        )  # fmt: skip
        assert pack.stdout is not None
        pack.stdout.close()
        assert pack.wait() == 0, "tar could not pack the base"
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def ca_bundle() -> Path | None:
    """The machine's certificates: a build behind an inspecting proxy needs them."""
    candidates = (os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
    return next((Path(name) for name in candidates if name and Path(name).is_file()), None)
