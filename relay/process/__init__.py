"""Worker processes of the relay: started, spoken to, watched and ended in one way."""
