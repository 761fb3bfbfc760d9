"""Workers of a mix on other machines: Ray starts them there, links carry their packets (docs/decisions/0022)."""
