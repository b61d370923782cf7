"""The HTTP surface of the cloud gateway."""
