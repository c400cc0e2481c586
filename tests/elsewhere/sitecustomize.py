"""Embedded clusters of another PostgreSQL than the one that comes with the server.

Python imports this by itself in every process that finds it (`make test-pg15`), so the servers and
the databases of a whole test run are of the version whose programs TEST_POSTGRES_PROGRAMS names.
"""

import os
from pathlib import Path

from server.db import binaries, embedded

# What initdb understands since PostgreSQL 17; the C library's locale of this name is as good.
SINCE_17 = ("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")


def execute(account: binaries.Account, program: str, *arguments: str) -> None:
    """Runs one of the programs, in the words that it knows."""
    known = [word for word in arguments if word not in SINCE_17]
    binaries.execute(account, program, *("C.UTF-8" if word == "C" else word for word in known))


vars(binaries).update(programs=lambda _: Path(os.environ["TEST_POSTGRES_PROGRAMS"]))
vars(embedded).update(execute=execute)
