"""Libraries of networks: torchvision, timm, and what an operator installed."""
