"""Composition root: builds all parts from the settings, and runs the roles, the scheduled jobs and `doctor`.

It may import every package except `cli` and `demo`.
"""
