"""Judges that share no code with what they judge: breakers, leases, and where the packets went."""
