"""PgBouncer between servers and their database: as Debian ships it, lending per transaction."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from server.db.binaries import Account
from tests.serving import until

STOP_SECONDS = 30
PORT = 6432
CONFIG = """\
[databases]
* = {target}
[pgbouncer]
pool_mode = transaction
auth_type = any
listen_addr =
listen_port = {port}
unix_socket_dir = {directory}
max_client_conn = 1000
default_pool_size = {connections}
# A run makes many databases and looks at each for a moment.
server_idle_timeout = 5
"""


def found() -> str | None:
    """The program, if this machine has it; an ordinary user's PATH may lack the place."""
    return shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


class Bouncer:
    """A running PgBouncer in front of every database of a PostgreSQL."""

    def __init__(self, program: str, conninfo: str, connections: int = 20) -> None:
        account = Account.find()
        self._directory = Path(tempfile.mkdtemp(prefix="worklease-bouncer-"))
        target = {k: v for k, v in conninfo_to_dict(conninfo).items() if k != "dbname"}
        config = self._directory / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(
                target=" ".join(f"{key}='{value}'" for key, value in target.items()),
                port=PORT, directory=self._directory, connections=connections,
            )
        )  # fmt: skip
        config.chmod(0o600)
        other = account.name is not None
        if other:
            # It refuses to run as root, as PostgreSQL does.
            for path in (config, self._directory):
                os.chown(path, account.uid, account.gid)
        self._process = subprocess.Popen(
            [program, "--quiet", str(config)],
            user=account.uid if other else None, group=account.gid if other else None,
            extra_groups=[] if other else None,
        )  # fmt: skip
        answering = self.conninfo(conninfo).encode()
        until(lambda: pq.PGconn.ping(answering) == pq.Ping.OK)

    def settings(self, direct: str) -> dict[str, str]:
        """What a server is told that is to use it."""
        return {"DATABASE_URL": self.conninfo(direct), "DATABASE_DIRECT_URL": direct}

    def conninfo(self, direct: str) -> str:
        """How to reach a database through it."""
        return make_conninfo(direct, host=str(self._directory), port=PORT)

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        shutil.rmtree(self._directory)
