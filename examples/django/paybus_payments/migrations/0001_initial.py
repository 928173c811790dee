from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Outgoing",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("command_id", models.CharField(max_length=255, unique=True)),
                ("variant", models.CharField(max_length=64)),
                ("body", models.JSONField()),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("sent", models.DateTimeField(db_index=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Followed",
            fields=[
                ("token", models.CharField(max_length=36, primary_key=True, serialize=False)),
                ("number", models.BigIntegerField(default=0)),
                ("answers", models.BigIntegerField(default=0)),
            ],
        ),
    ]
