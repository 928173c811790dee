"""Starts localstripe, somebody else's stateful imitation of Stripe, on a port of this machine alone.

    localstripe_server.py PORT

It refuses fields of Stripe's that it does not know. Those that change nothing of how a payment goes are taken out before it
sees them; all others reach it as they were sent.
"""

import re
import sys

from aiohttp import web
from localstripe import resources
from localstripe.server import app
from multidict import MultiDict, MultiDictProxy

UNKNOWN = ("created[gte]", "created[lte]", "description", "expand[]", "return_url", "statement_descriptor_suffix")


CAPTURE = re.compile("/v1/payment_intents/([^/]+)/capture")
METADATA = re.compile(r"metadata\[(.+)\]")


def known(fields):
    return MultiDict((name, value) for name, value in fields.items() if name not in UNKNOWN)


def take_metadata(path, fields):
    """A capture adds to the metadata of its payment intent at Stripe; localstripe knows no metadata there."""
    capture = CAPTURE.fullmatch(path)
    if capture is None:
        return fields
    intent = resources.PaymentIntent._api_retrieve(capture[1])
    given = {METADATA.fullmatch(name)[1]: value for name, value in fields.items() if METADATA.fullmatch(name)}
    intent.metadata = {**intent.metadata, **given}
    return MultiDict((name, value) for name, value in fields.items() if not METADATA.fullmatch(name))


@web.middleware
async def leave_out_unknown(request, handler):
    if request.method == "POST" and not request.path.startswith("/_config/"):
        # What it reads the form from.
        request._post = MultiDictProxy(take_metadata(request.path, known(await request.post())))
    else:
        request = request.clone(rel_url=request.rel_url.with_query(known(request.query)))
    return await handler(request)


# Members that every charge of Stripe's has, and localstripe's has not.
resources.Charge.disputed = False
capture = resources.Charge._capture


def capture_and_note(self, amount, on_success=None):
    self._amount_captured = int(self.amount if amount is None else amount)
    capture(self, amount, on_success)


def amount_captured(self):
    whole = self.amount if self.captured else 0
    return getattr(self, "_amount_captured", whole)


resources.Charge._capture = capture_and_note
resources.Charge.amount_captured = property(amount_captured)

# It would write its store to a file in /tmp after every request.
resources.Store.dump_to_disk = lambda self: None
app.middlewares.insert(0, leave_out_unknown)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
