"""One layer at a time: which of its weights stay, and what these become."""
