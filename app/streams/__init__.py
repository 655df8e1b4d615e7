"""Everything that Throughline keeps in Redis: the session log, leases, jobs, publications."""
