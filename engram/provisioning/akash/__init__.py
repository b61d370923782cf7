"""Nodes on Akash: native transactions over REST, provider gateways, and the saga of a deployment."""
