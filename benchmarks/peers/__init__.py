"""The same small program for each peer.

GET / answers a page. /echo returns each message. A socket on /group is a member of one group; what it sends goes to all
members, each with a handler of its own where the peer has such a thing. /unchanged does the same in the cheapest way
that the peer offers for a message that nobody changes.
"""
