"""Who may do what: keys and tokens that callers give, the scopes these have, and what each route asks for."""
