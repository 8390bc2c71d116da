"""What agents look up: vectors of texts, by nearness and by what is known of them."""
