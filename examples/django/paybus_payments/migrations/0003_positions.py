import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("paybus_payments", "0002_operations")]
    operations = [
        migrations.CreateModel(
            name="Reached",
            fields=[
                ("variant", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("position", models.BigIntegerField()),
                ("modified", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="Applied",
            fields=[
                ("position", models.BigIntegerField(primary_key=True, serialize=False)),
                ("variant", models.CharField(max_length=64)),
            ],
        ),
    ]
