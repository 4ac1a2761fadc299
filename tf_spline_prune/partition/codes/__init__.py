"""Binary codes of the partition, and how far two of them are apart."""
