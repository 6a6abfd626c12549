"""`make bench`: what a replica serves, as a share of what aiohttp alone serves in the same run."""
