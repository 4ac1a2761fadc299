"""What `fit` and `compile` want of the flavours: callbacks, logs, workers."""
