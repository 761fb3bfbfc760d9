"""The pages, packaged as `costream_web` so that an installed node finds them."""
