"""The same small program for each peer.

GET / answers a page. /echo returns each message. A socket on /group is a member of one group; what it sends goes to all
members, each with a handler of its own where the peer has such a thing. /unchanged does the same in the cheapest way
that the peer offers for a message that nobody changes.

``trichannels serve`` raises the garbage collector's thresholds, the other servers leave them alone. With TUNE_GC in the
environment, all Python servers run with ours.
"""

import gc
import os

if os.environ.get("TUNE_GC"):
    gc.set_threshold(50_000, 20, 20)  # written out: to import it would load trio into every peer
