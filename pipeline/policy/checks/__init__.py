"""One function per clause: it inspects the running system and returns whether the clause is true now."""
