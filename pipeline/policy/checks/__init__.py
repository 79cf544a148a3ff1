"""One function for each clause: it looks at the running system and says whether the sentence is true now."""
