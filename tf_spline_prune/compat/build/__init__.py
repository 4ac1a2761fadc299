"""Models built again from a graph: smaller, masked, in another dtype."""
