"""What TensorBoard shows of a sweep and of its report, in a real browser without a screen."""

import io
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from command_line import pg

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
QUIET = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a TensorBoard over a small sweep and its report."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    place = tmp_path_factory.mktemp("board")
    line = ["estimator=rtg,rtg_mean", "seeds=3", "iterations=15", "batch_size=8"]
    assert pg("train", "-m", *line, cwd=place).returncode == 0
    assert pg("report", "outputs", cwd=place).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("tensorboard", path=sysconfig.get_path("scripts"))
    command = [program, "--logdir", "outputs", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                runs = urllib.request.urlopen(f"{address}/data/runs", timeout=5).read()
                if runs.count(b"estimator@") >= 2 and b"report" in runs:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def picture(address: str, place: Path) -> np.ndarray:
    """A screenshot, [H, W, 3] in [0, 1]; kept under PG_SCREENSHOTS for the eye."""
    from matplotlib.image import imread

    path = place / "shot.png"
    flags = ["--window-size=1500,1300", "--virtual-time-budget=30000", f"--screenshot={path}"]
    profile = f"--user-data-dir={place / 'profile'}"
    subprocess.run(
        [BROWSER, *QUIET, *flags, profile, address], check=True, capture_output=True, timeout=120
    )
    content = path.read_bytes()
    if kept := os.environ.get("PG_SCREENSHOTS"):
        name = address.rpartition("#")[2].partition("&")[0] or "start"
        (Path(kept) / f"{name}.png").write_bytes(content)
    return imread(io.BytesIO(content))[..., :3]


@pytest.mark.slow
@pytest.mark.parametrize("tab", ["custom_scalars", "hparams", "timeseries"])
def test_a_tab_shows_the_sweep(tab, server, tmp_path):
    shot = picture(f"{server}/#{tab}", tmp_path)
    below_the_bar = shot[80:]
    coloured = (below_the_bar.max(-1) - below_the_bar.min(-1)) > 0.15
    dark = below_the_bar.max(-1) < 0.5
    assert dark.mean() > 0.004, "no text"
    if tab == "custom_scalars":  # curves with their bands
        assert coloured[:, 400:].mean() > 0.004, "no curves"
