"""The way out: calls to hosts that others have named."""
