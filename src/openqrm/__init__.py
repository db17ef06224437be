"""openQRM: datacentre management and private cloud."""

__version__ = "0.1.0"
