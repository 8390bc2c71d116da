"""The guide to the gateway: its session is one that a stock client has, and its example works by HTTP too."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_session_in_the_guide_is_one_that_a_stock_client_has(root):
    guide = runpy.run_path(str(root / "tools" / "gateway_guide.py"))
    assert guide["session"]() == guide["logged"]()


@pytest.mark.slow
def test_the_example_of_the_guide_is_served_by_http_to_who_has_a_token(root, tmp_path):
    folder = tmp_path / "gateway"
    shutil.copytree(root / "examples" / "mcp-gateway", folder)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8"}

    def run(*command, given=""):
        return subprocess.run(
            command, cwd=folder, env=environment, input=given, capture_output=True, text=True, timeout=60, check=True
        )

    token = run("symbi", "mcp", "clients", "add", "desk").stdout
    command = ["symbi", "mcp", "--http", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as gateway:
        try:
            url = next(line for line in gateway.stderr if "gateway is at" in line).split()[-1]
            said = run(sys.executable, "session.py", url, given=token).stdout
            gateway.terminate()
            assert gateway.wait(timeout=30) == 0
        finally:
            gateway.kill()
    assert "sent 20 characters to grace@example.com" in said
    assert "notes go to our own people alone" in said
    assert "stranger@example.net" not in "".join(line for line in said.splitlines() if line.startswith("<--"))
    denied = run("symbi", "audit", "show", "--type", "decision.deny", "--agent", "mcp.desk").stdout
    assert "our-people" in denied
    assert "verified" in run("symbi", "audit", "verify").stdout
