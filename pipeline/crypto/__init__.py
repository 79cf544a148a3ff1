"""Encryption: data keys, master key, key rotation, and signatures.

May import db and nothing above it.
"""
