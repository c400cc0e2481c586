"""Much at once, and for long: leases, streams, waiting agents; an old snapshot, old runs."""
