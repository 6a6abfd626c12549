"""How much may be asked from one address and by one caller, and how often an id or a key may be guessed there."""
