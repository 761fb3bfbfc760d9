"""The picture of a program: `pool` is the relay's side, `python -m relay.mix.video` a worker."""
