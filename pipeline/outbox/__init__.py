"""The queue of mails, a database table: mails are added in the transaction that causes them, claimed, and settled."""
