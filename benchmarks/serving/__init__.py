"""Speed of the service beside its peers: the same network, bodies and decoding, in rounds taken in turn."""
