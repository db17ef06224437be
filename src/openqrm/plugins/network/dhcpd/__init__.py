"""DHCP for the networks of the datacentre, by Kea."""
