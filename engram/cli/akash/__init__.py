"""`engram akash`: the account that pays for nodes on Akash, their definitions, and what is deployed."""
