"""Public sets, prepared pairs, the packed store and the patches that training reads from it."""
