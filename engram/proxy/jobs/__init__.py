"""Requests that outlive their answer: the backend works on while the client has a job id to come back with."""
