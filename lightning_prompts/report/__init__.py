"""What studies and runs show: figures, tables, and one page that holds them."""
