"""Model files: read, judged, and only then loaded."""
