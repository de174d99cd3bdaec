"""Figures of each site and of the machine, kept in round-robin archives: the newest finely, the old ones coarsely."""
