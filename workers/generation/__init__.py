"""The generation worker: takes jobs, lets a model answer, writes the answer into the log."""
