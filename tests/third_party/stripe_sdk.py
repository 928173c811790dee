"""Stripe's own SDK, against our imitation of Stripe, and as the judge of signatures.

    stripe_sdk.py client URL             goes through what a payment can go through, and ends with 0 where all is as expected
    stripe_sdk.py sign SECRET [TIME]     prints the Stripe-Signature header of the payload on standard input
    stripe_sdk.py verify SECRET HEADER   ends with 0 where the SDK takes the payload on standard input as Stripe's
"""

import json
import sys
import time
import uuid

import stripe
from stripe import StripeClient


def client_of(url, key="sk_test_judge"):
    # Nothing is sent twice behind our back.
    return StripeClient(key, base_addresses={"api": url}, max_network_retries=0)


def create(client, key=None, **params):
    base = {
        "amount": 12000,
        "currency": "usd",
        "confirm": True,
        "payment_method": "pm_card_visa",
        "payment_method_types": ["card"],
        "expand": ["latest_charge"],
        "metadata": {"paybus_payment": str(uuid.uuid4())},
    }
    options = {"idempotency_key": key} if key else {}
    return client.v1.payment_intents.create({**base, **params}, options)


def refused(kind, action, **expected):
    try:
        action()
    except kind as error:
        for name, value in expected.items():
            found = getattr(error, name, None) or getattr(error.error, name, None)
            assert found == value, f"{name} is {found!r}, not {value!r}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def charge_and_refund(client):
    intent = create(client)
    assert (intent.status, intent.amount_received, intent.latest_charge.captured) == ("succeeded", 12000, True)
    first = client.v1.refunds.create({"payment_intent": intent.id, "amount": 2000, "metadata": {"a": "b"}})
    assert (first.status, first.amount, first.payment_intent) == ("succeeded", 2000, intent.id)
    listed = client.v1.refunds.list({"payment_intent": intent.id, "limit": 100})
    assert [refund.id for refund in listed.data] == [first.id] and listed.has_more is False
    client.v1.refunds.create({"payment_intent": intent.id})
    charge = client.v1.payment_intents.retrieve(intent.id, {"expand": ["latest_charge"]}).latest_charge
    assert (charge.amount_refunded, charge.refunded) == (12000, True)
    again = lambda: client.v1.refunds.create({"payment_intent": intent.id})
    refused(stripe.InvalidRequestError, again, code="charge_already_refunded", http_status=400)


def hold_and_capture(client):
    intent = create(client, capture_method="manual")
    assert (intent.status, intent.amount_capturable) == ("requires_capture", 12000)
    too_much = lambda: client.v1.payment_intents.capture(intent.id, {"amount_to_capture": 12001})
    refused(stripe.InvalidRequestError, too_much, code="amount_too_large")
    intent = client.v1.payment_intents.capture(intent.id, {"amount_to_capture": 4550})
    assert (intent.status, intent.amount_received, intent.amount_capturable) == ("succeeded", 4550, 0)
    twice = lambda: client.v1.payment_intents.capture(intent.id)
    refused(stripe.InvalidRequestError, twice, code="payment_intent_unexpected_state")


def hold_and_release(client):
    intent = create(client, capture_method="manual")
    intent = client.v1.payment_intents.cancel(intent.id)
    assert intent.status == "canceled"
    refused(stripe.InvalidRequestError, lambda: client.v1.payment_intents.capture(intent.id))


def declines(client):
    for method, code, decline_code in [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ]:
        error = refused(stripe.CardError, lambda: create(client, payment_method=method), code=code, http_status=402)
        assert error.error.decline_code == decline_code, error.error.decline_code
        assert error.error.payment_intent.status == "requires_payment_method"
        # Another payment method, and the same payment intent goes on.
        intent = client.v1.payment_intents.confirm(error.error.payment_intent.id, {"payment_method": "pm_card_visa"})
        assert intent.status == "succeeded"


def customers_who_must_act(client):
    method = "pm_card_threeDSecure2Required"
    intent = create(client, payment_method=method, return_url="https://shop.example/back")
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    assert intent.next_action.redirect_to_url.return_url == "https://shop.example/back"
    off_session = lambda: create(client, payment_method=method, off_session=True)
    refused(stripe.CardError, off_session, code="authentication_required")


def one_key_acts_once(client):
    key, metadata = str(uuid.uuid4()), {"paybus_payment": str(uuid.uuid4())}
    first = create(client, key, metadata=metadata)
    second = create(client, key, metadata=metadata)
    assert first.id == second.id
    assert second.last_response.headers.get("Idempotent-Replayed") == "true"
    refused(stripe.IdempotencyError, lambda: create(client, key, metadata=metadata, amount=1), http_status=400)
    # A decline is kept as well.
    key = str(uuid.uuid4())
    decline = lambda: create(client, key, metadata=metadata, payment_method="pm_card_visa_chargeDeclined")
    ids = {refused(stripe.CardError, decline).error.payment_intent.id for _ in range(2)}
    assert len(ids) == 1, ids


def lists(client):
    begun = int(time.time()) - 60
    made = [create(client).id for _ in range(3)]
    page = client.v1.payment_intents.list({"limit": 2, "created": {"gte": begun}})
    assert [intent.id for intent in page.data] == made[:0:-1] and page.has_more is True
    ids = [intent.id for intent in page.auto_paging_iter()]
    assert ids[:3] == made[::-1], "newest first, over all pages"
    assert client.v1.payment_intents.list({"created": {"lte": begun - 3600}}).data == []


def strangers(client, url):
    refused(stripe.AuthenticationError, lambda: create(client_of(url, "wrong")), http_status=401)
    missing = lambda: client.v1.payment_intents.retrieve("pi_nobody")
    refused(stripe.InvalidRequestError, missing, code="resource_missing", http_status=404)
    refused(stripe.InvalidRequestError, lambda: create(client, surprise="1"), code="parameter_unknown")


def go_through(url):
    client = client_of(url)
    parts = [charge_and_refund, hold_and_capture, hold_and_release, declines, customers_who_must_act]
    for part in [*parts, one_key_acts_once, lists]:
        part(client)
        print("ok", part.__name__, flush=True)
    strangers(client, url)
    print("ok strangers")


def sign(secret, moment):
    payload = sys.stdin.read()
    signature = stripe.WebhookSignature._compute_signature(f"{moment}.{payload}", secret)
    print(f"t={moment},v1={signature}")


def verify(secret, header):
    event = stripe.Webhook.construct_event(sys.stdin.read(), header, secret)
    print(json.dumps({"id": event.id, "type": event.type}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", url]:
            go_through(url)
        case ["sign", secret]:
            sign(secret, int(time.time()))
        case ["sign", secret, moment]:
            sign(secret, int(moment))
        case ["verify", secret, header]:
            verify(secret, header)
        case _:
            sys.exit(__doc__)
