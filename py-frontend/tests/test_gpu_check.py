"""What `scripts/gpu-check` takes to another machine: a bundle, which runs from where it lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT

BUNDLE_BYTES_MAX = 60_000_000
ABSENT = 77
SECONDS_MAX = 500
# Runs a command where this machine's own DPDK can't be seen, as where a bundle is to run:
# else EAL opens the drivers of both, and one of them registers twice.
WITHOUT_DPDK = """
set -e
mount -t tmpfs none "$1/dpdk"
for file in "$1"/librte_*.so*; do
    [ -L "$file" ] || mount --bind /dev/null "$file"
done
shift
exec "$@"
"""


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in `folder`, with this Python for what needs torch."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "GENIE_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, made here and unpacked elsewhere."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle = folder / "genie-gpu-check.tar.zst"
    made = run(ROOT / "scripts" / "gpu-check", "--bundle", bundle, folder=folder)
    if "DPDK is missing" in made.stderr:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    assert 0 < bundle.stat().st_size < BUNDLE_BYTES_MAX
    opened = run("tar", "--zstd", "-xf", bundle, folder=folder)
    assert opened.returncode == 0, opened.stderr
    return folder / "genie-gpu-check"


@pytest.fixture(scope="module")
def elsewhere() -> tuple[str, ...]:
    """What comes before a command, to run it where there is no DPDK."""
    asked = ["pkg-config", "--variable=libdir", "libdpdk"]
    libraries = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    before = ("unshare", "--mount", "sh", "-c", WITHOUT_DPDK, "sh", libraries)
    tried = subprocess.run([*before, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this machine's DPDK can't be hidden: {tried.stderr.strip()}")
    return before


@pytest.mark.slow
def test_a_bundle_passes_on_the_host_device(
    unpacked: Path, elsewhere: tuple[str, ...], tmp_path: Path
) -> None:
    """All that it needs is in it: nothing is built, and this machine's DPDK is not there."""
    report = tmp_path / "report.json"
    ran = run(
        *elsewhere,
        unpacked / "scripts" / "gpu-check",
        *("--device", "host:0", "--json", report),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(report.read_text())
    assert (found["device"], found["is_gpu"]) == ("host:0", False)
    names = {check["name"] for check in found["checks"]}
    assert {"gather", "gpudev", "direct_over_link", "staged_over_link"} <= names
    assert {"resnet18_parity", "gpt2_parity"} <= names
    assert {check["status"] for check in found["checks"]} == {"passed"}


@pytest.mark.slow
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has an NVIDIA GPU")
def test_a_bundle_says_that_there_is_no_gpu(unpacked: Path, tmp_path: Path) -> None:
    """And ends as a test does that can't run."""
    ran = run(unpacked / "scripts" / "gpu-check", "--json", tmp_path / "none.json", folder=tmp_path)
    assert ran.returncode == ABSENT, ran.stdout + ran.stderr
    assert "no NVIDIA GPU" in ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has an NVIDIA GPU")
def test_the_report_says_that_there_is_no_gpu(unpacked: Path, tmp_path: Path) -> None:
    report = tmp_path / "none.json"
    run(unpacked / "scripts" / "gpu-check", "--json", report, folder=tmp_path)
    assert "no NVIDIA GPU" in json.loads(report.read_text())["reason"]
