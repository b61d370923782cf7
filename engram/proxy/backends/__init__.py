"""The servers behind the proxy: which of them gets a request, and what is known of their health."""
