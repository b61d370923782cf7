"""A reference orchestrator: sends jobs to workers over Socket.IO, and keeps what it posted and what came back."""
