"""The table of encryption keys."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.db.models.base import Base


class EncryptionKey(Base):
    """A data key, encrypted ("wrapped") with the master key."""

    __tablename__ = "encryption_key"

    key_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    wrapped_key: Mapped[bytes | None]  # None: the key was destroyed, and the row prevents a new one (tombstone)
    created_at: Mapped[datetime]
    erased_at: Mapped[datetime | None]
