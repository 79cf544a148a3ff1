"""What the checks may look at: the database, our own pages, mails, connections and the settings of journald."""
