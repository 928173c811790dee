import os
import uuid
from urllib.parse import urlsplit

NAME = f"dj{uuid.uuid4().hex[:10]}"
_place = urlsplit(os.environ["PAYBUS__DATABASE__URL"])
SECRET_KEY = "only-for-tests"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "payments", "paybus_payments", "tests"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": f"{NAME}_shop",
        "USER": _place.username,
        "PASSWORD": _place.password or "",
        "HOST": _place.hostname,
        "PORT": _place.port,
    }
}
ROOT_URLCONF = "tests.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
ALLOWED_HOSTS = ["shop.example"]
PAYMENT_HOST = "shop.example"
PAYMENT_MODEL = "tests.Payment"
PAYMENT_VARIANTS = {
    "cards": ("tests.models.Cards", {"variant": "default"}),
    "later": ("tests.models.Cards", {"variant": "default", "capture": False}),
    "hold": ("tests.models.Cards", {"variant": "hold"}),
    "at-once": ("tests.models.Cards", {"variant": "hold", "capture": True}),
    # Of django-payments itself, with no paybus behind it.
    "other": ("payments.dummy.DummyProvider", {}),
    "dummy": ("paybus_payments.dummy.PaybusDummyProvider", {"variant": "default"}),
}
# The worker's variants: of "hold", payments are captured only where somebody says so.
os.environ |= {
    "PAYBUS__VARIANTS__DEFAULT__GATEWAY": "dummy",
    "PAYBUS__VARIANTS__HOLD__GATEWAY": "dummy",
    "PAYBUS__VARIANTS__HOLD__CAPTURE": "false",
}
PAYBUS = {"url": os.environ["PAYBUS__AMQP__URL"], "prefix": NAME, "source": "shop", "name": f"{NAME}.shop"}
