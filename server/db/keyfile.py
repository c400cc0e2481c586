"""Small secret files in the data directory, made once whoever comes first."""

import os
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex, token_urlsafe

from server.config import Config


def make_directory(path: Path) -> None:
    """Makes a directory that only its owner may enter; one that exists stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def secrets_in_use(config: Config) -> tuple[bytes, ...]:
    """The server secret, then the one before it if there is one."""
    secret = config.secret
    if secret is None:
        secret = read_or_make(config.data_dir / "secret", lambda: token_urlsafe(48)).encode()
    return (secret, config.secret_previous) if config.secret_previous else (secret,)


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The text of the file; a missing one is made, mode 0600, the same for every process."""
    if not path.exists():
        make_directory(path.parent)
        draft = path.with_name(f".{path.name}.{token_hex(8)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(make() + "\n")
                file.flush()
                os.fsync(file.fileno())
            _publish(draft, path)
        finally:
            draft.unlink()
    return path.read_text().strip()


def _publish(draft: Path, path: Path) -> None:
    # A link fails where a rename would replace the file that another process just made.
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
