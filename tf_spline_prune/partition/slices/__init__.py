"""The partition on a plane: polygons, maps, decision boundary."""
