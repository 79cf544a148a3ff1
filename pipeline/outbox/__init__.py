"""Mail queue in the table `mail`: queue mails in the transaction that causes them, claim them, and record their results."""
