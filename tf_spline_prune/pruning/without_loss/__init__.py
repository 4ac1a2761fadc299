"""Units that can go without any loss."""
