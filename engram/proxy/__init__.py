"""The reverse proxy that guards GPU backends: it proves who calls, limits them, and carries requests both ways."""
