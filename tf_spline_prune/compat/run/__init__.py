"""Running a model or parts of it, and leaving its states as they were."""
