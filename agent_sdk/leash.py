"""Runs a command on a leash: told to end when standard input closes, as at its holder's death.

Started as a file of its own, which takes no time: `python -P leash.py COMMAND ...`.
"""

import os
import subprocess
import sys
import threading


def main() -> int:
    """Run the command that the arguments are; its exit status."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_holder, args=[process], daemon=True).start()
    return process.wait()


def _end_with_holder(process: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)
    process.terminate()


if __name__ == "__main__":
    sys.exit(main())
