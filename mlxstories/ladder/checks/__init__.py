"""The checks of the ladder, one file a question; imported in the order in which they are asked."""
