"""What a vendor would pick instead, as its users write it: FastAPI, Celery on RabbitMQ, SQLAlchemy, Django's mail.

Runs in an environment of its own (requirements.lock); nothing here imports our program, nor the other way round.
"""
