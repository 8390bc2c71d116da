"""What runs inside a container: texts for the Python there, of the standard library of Python 3.8 alone."""
