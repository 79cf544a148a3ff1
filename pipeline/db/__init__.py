"""Database access: tables, migrations, engine, bulk statements and the last-writer-wins map.

May import no other package.
"""
