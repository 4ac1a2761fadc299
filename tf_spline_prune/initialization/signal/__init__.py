"""What happens to a signal on its way through a network."""
