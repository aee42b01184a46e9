"""Studies: many runs of the command line, what each one found, and the folder that keeps them."""
