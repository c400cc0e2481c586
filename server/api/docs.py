"""The page that every error points to, made from the table of errors."""

from functools import cache
from html import escape
from itertools import groupby
from string import Template
from typing import Final

from server.api.context import Context
from server.codes import CODES
from server.contract.base import Encoded
from server.remedies import REMEDIES
from server.rules.inspect import FINDINGS

HTML: Final = b"text/html; charset=utf-8"
PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Worklease: errors</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
section { padding: .25rem .75rem; border-left: 3px solid #8885; margin: 1rem 0; }
section:target { border-left-color: #d33; }
h3 { margin: .25rem 0; }
h3 a { color: inherit; text-decoration: none; }
p { margin: .25rem 0; }
small { opacity: .7; }
</style>
</head>
<body>
<h1>Errors</h1>
<p>Every answer of status 400 or more carries one of these codes in <code>diagnostic.code</code>.
Codes are never renamed or reused: branch on them, not on texts.</p>
$sections
</body>
</html>
""")


async def errors(ctx: Context) -> Encoded[str]:
    """Explains every error code, each under its anchor."""
    return Encoded(_page(), content_type=HTML)


@cache
def _page() -> bytes:
    by_status = sorted(CODES.items(), key=lambda item: item[1].status)
    parts = []
    for status, entries in groupby(by_status, key=lambda item: item[1].status):
        parts.append(f"<h2>{status}</h2>")
        for name, code in entries:
            label = f"{code.status} · {code.severity} · {code.category}"
            parts.append(_section(name, code.title, code.message, label))
    parts.append("<h2>Diagnostics</h2><p>What inspect finds; no call is refused for it.</p>")
    for name, finding in FINDINGS.items():
        parts.append(_section(name, finding.title, finding.message, finding.severity))
    return PAGE.substitute(sections="\n".join(parts)).encode()


def _section(name: str, title: str, message: str, label: str) -> str:
    return (
        f'<section id="{name}"><h3><a href="#{name}"><code>{name}</code></a></h3>'
        f"<p><b>{escape(title)}.</b> {escape(message)}</p><p>{escape(REMEDIES[name])}</p>"
        f"<p><small>{label}</small></p></section>"
    )
