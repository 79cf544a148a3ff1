"""How long data is kept, and the run that ends what is older. May import the tables, and nothing of erasure."""
