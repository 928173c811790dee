from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("paybus_payments", "0001_initial")]
    operations = [
        migrations.AddField("Outgoing", "operation", models.UUIDField(null=True)),
        migrations.AddField("Outgoing", "state", models.CharField(blank=True, default="", max_length=16)),
    ]
