"""How validators vouch for one another's scores before these are relayed."""
