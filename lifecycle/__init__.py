"""The lifecycle manager: what runs, where, and until when. Imports nothing of the gateway."""
