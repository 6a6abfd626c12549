"""Redis clients to compare with. Some of them have an environment of their own (requirements.txt)."""
