"""How fast data, training and evaluation are, and what bounds them."""
