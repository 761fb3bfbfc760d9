"""Drills as files: their schema, and errors that name the line and the key."""
