from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import include, path
from payments import RedirectNeeded, get_payment_model


def checkout(request: HttpRequest, pk: int) -> HttpResponse:
    """A project's own view, as django-payments' documentation has it."""
    payment = get_object_or_404(get_payment_model(), pk=pk)
    try:
        form = payment.get_form(data=request.POST or None)
    except RedirectNeeded as needed:
        return redirect(str(needed))
    return render(request, "payments/payment_form.html", {"form": form})


urlpatterns = [path("checkout/<int:pk>/", checkout), path("", include("payments.urls"))]
