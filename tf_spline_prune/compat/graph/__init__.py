"""A model as a graph of calls, of either flavour."""
