"""Chromium as a client: how it is found and started, and viewers that watch by the project's own page."""
