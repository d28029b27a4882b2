"""Autobahn's fuzzing client, straight to an echo server and through the gateway to the same one."""
