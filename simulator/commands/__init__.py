"""Drop-in forms of StorPool's command-line tools, as far as public clients use them (spec storpool-api 10.4)."""
