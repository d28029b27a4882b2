"""The agent: the small HTTP service on a machine that starts, stops, snapshots and restores workspaces."""
