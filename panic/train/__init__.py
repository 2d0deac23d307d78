"""Training of small models that become network nodes."""
