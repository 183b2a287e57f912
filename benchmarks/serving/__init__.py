"""Speed of the service beside its peers: same networks, bodies and decoding, in rounds in turn."""
