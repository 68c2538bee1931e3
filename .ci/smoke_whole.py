"""The whole wheel: bring everything up, record a command, read it back, stop."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

RUNFOLD = os.path.abspath(sys.argv[1])
DEADLINE = time.monotonic() + 120


def runfold(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [RUNFOLD, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != status:
        sys.exit(f"runfold {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def read_run(api: str) -> dict:
    """The one run that was recorded, once it is folded."""
    while time.monotonic() < DEADLINE:
        with urllib.request.urlopen(f"{api}/api/v1/runs", timeout=10) as answer:
            runs = json.load(answer)["runs"]
        if runs and runs[0]["status"] not in ("queued", "running"):
            return runs[0]
        time.sleep(0.1)
    sys.exit("the run did not arrive")


def wait_for_api() -> str:
    """The address that `runfold up --json` prints when everything answers."""
    for line in stack.stdout:
        if line.startswith("{"):
            return json.loads(line)["api_url"]
    sys.exit(f"runfold up ended with {stack.wait()}")


assert "runfold" in runfold("--version")
up = [RUNFOLD, "up", "--port", "0", "--json"]
stack = subprocess.Popen(up, stdout=subprocess.PIPE, text=True)
try:
    api_url = wait_for_api()
    command = ["sh", "-c", "echo hello; exit 3"]
    assert runfold("exec", "--workflow", "smoke", "--", *command, status=3) == "hello\n"
    run = read_run(api_url)
    assert (run["workflow"], run["status"], run["exit_code"]) == ("smoke", "failed", 3), run
    assert json.loads(runfold("runs", "--json"))["runs"][0]["id"] == run["id"]
    runfold("doctor")
finally:
    stack.send_signal(signal.SIGTERM)
    code = stack.wait(60)
assert code == 0, f"runfold up ended with {code}"
