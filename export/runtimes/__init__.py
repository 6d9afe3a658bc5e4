"""An export in this process: what runs it, and the clients' methods of it."""
