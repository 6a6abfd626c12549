"""Messages of sessions: the history, the inboxes of agents, and the dispatch between them."""
