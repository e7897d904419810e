"""Bodies and answers on the wire: `requests` and `answers` of volumes and what is around them; other rooms' in one
module each."""
