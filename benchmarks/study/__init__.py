"""The study: the paper's three factors measured with several seeds, and what growth and a teacher bring together."""
