"""What the law asks of the trail: what is kept of a person, and how it is forgotten."""
