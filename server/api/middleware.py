"""What stands around all routes."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

EXPOSED = ("ETag", "Idempotent-Replayed", "Retry-After", "X-Request-ID")


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Lets browsers of these origins call; without any the app stays as it is."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"],
        expose_headers=EXPOSED, max_age=600,
    )  # fmt: skip
