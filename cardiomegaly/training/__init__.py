"""One run: from a configuration to a run folder."""
