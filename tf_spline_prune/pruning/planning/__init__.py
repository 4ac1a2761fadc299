"""Which units go, so that a budget is met."""
