from django.apps import AppConfig


class PaybusPayments(AppConfig):
    name = "paybus_payments"
    verbose_name = "Payments over paybus"
    default_auto_field = "django.db.models.BigAutoField"
