"""HTTP: the table of routes, the one decoder, the handlers."""
