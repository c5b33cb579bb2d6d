"""The report page under the name of its command; the page itself is ``probes.page``."""
