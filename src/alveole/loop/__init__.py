"""What must exist, the next steps towards it, and the loop that takes them."""
