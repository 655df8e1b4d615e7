"""The background processes: generation, event relay, audit and analytics."""
