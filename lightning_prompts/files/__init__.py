"""Below everything: errors, numbers and text in sentences, atomic files, the hub."""
