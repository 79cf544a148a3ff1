"""Turn a kind of mail and its facts into the bytes of one e-mail: templates, MIME encoding, and a check of the result."""
