"""Whether a rule, a plan or a small model is what it should be."""
