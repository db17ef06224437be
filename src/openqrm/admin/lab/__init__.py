"""The virtual datacentre: a user-facing tool and the project's test bed."""
