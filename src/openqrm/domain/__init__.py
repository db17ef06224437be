"""The datacentre's words as data: entities, state tables, placement. Pure: no I/O, no clock, no database."""
