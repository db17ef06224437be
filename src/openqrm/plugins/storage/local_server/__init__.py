"""Roots on partitions of the machine that runs them."""
