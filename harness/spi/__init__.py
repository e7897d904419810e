"""CloudStack's contracts as typed Python, and the ports that production code is handed.

Driver and agent meet here and nowhere else. Names are CloudStack's (spec/cloudstack-plugin.md sections 2 and 3).
"""
