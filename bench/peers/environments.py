"""Where the peers are installed: below .bench/peers, apart from what Worklease needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
HOME = TOP / ".bench" / "peers"
PYTHON = HOME / "venv" / "bin" / "python"
# A Node.js of its own: the peers want a newer one than many systems have.
NODE = HOME / "node_modules" / ".bin" / "node"
READY = HOME / "ready"


def install() -> None:
    """Installs the peers by name, once; raises SystemExit with what is missing."""
    wanted = "".join(path.read_text() for path in sorted(PROGRAMS.iterdir()) if path.is_file())
    if READY.exists() and READY.read_text() == wanted:
        return
    if shutil.which("npm") is None:
        raise SystemExit("two of the peers need npm (Node.js), and there is none")
    HOME.mkdir(parents=True, exist_ok=True)
    # A script of Node.js finds packages beside itself and nowhere else.
    for path in PROGRAMS.iterdir():
        shutil.copy(path, HOME)
    print("installing the peers ...", flush=True)
    _run(sys.executable, "-m", "venv", "venv")
    _run(str(PYTHON), "-m", "pip", "install", "--quiet", "--upgrade", "-r", "requirements.txt")
    _run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error")
    READY.write_text(wanted)


def versions() -> dict[str, str]:
    """What was installed."""
    found = {}
    for name in ("procrastinate", "pgqueuer"):
        asked = f"from importlib.metadata import version; print(version('{name}'))"
        found[name] = _run(str(PYTHON), "-c", asked).strip()
    for name in ("pg-boss", "graphile-worker"):
        asked = f"console.log(require('./node_modules/{name}/package.json').version)"
        found[name] = _run(str(NODE), "--input-type=commonjs", "-e", asked).strip()
    return found


def _run(*command: str) -> str:
    done = subprocess.run(
        command, cwd=HOME, env=os.environ, check=False, text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
