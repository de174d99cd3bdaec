"""Other machines: the ways to them, what is asked and told there, and a site as one file."""
