"""Making up for what is gone, before any training or by it."""
