"""Autobahn's own echo server, in its environment (Python 2.7): PORT. Asked under any name and port."""

import sys

from autobahntestsuite.testee import TesteeServerFactory
from twisted.internet import reactor

factory = TesteeServerFactory("ws://127.0.0.1:" + sys.argv[1])
factory.externalPort = None  # Host is the gateway's
reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
reactor.run()
