"""Messages between agents: sealed, signed, refused where they come twice."""
