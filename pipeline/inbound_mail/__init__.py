"""Mail that people write to us: parsed, filed, acknowledged, and put to the operator as a request.

May import privacy, customers, outbox and below; nothing here changes a customer's data or settings.
"""
