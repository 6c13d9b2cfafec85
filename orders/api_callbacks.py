"""What providers send, below the API's address: /api/v1/provider-callbacks/<provider>.

The same as /webhooks/<provider>, for whoever lets nothing but the API through, and with the API's problems for answers.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from orders.api_errors import problem_answer
from orders.api_problems import PROBLEMS
from orders.inbound_views import received

CODES = {400: "unauthenticated", 404: "not-found", 413: "payload-too-large", 503: "overloaded"}


@csrf_exempt
def receive(request: HttpRequest, provider: str) -> HttpResponse:
    """200 once it is stored, also when it comes again; 401 for what the provider has not signed."""
    if request.method != "POST":
        answer: HttpResponse = problem_answer(request, PROBLEMS["method-not-allowed"])
        answer.headers["Allow"] = "POST"
        return answer
    status, words = received(request, provider)
    if status in CODES:
        answer = problem_answer(request, PROBLEMS[CODES[status]], words)
        if status == 400:
            answer.headers["WWW-Authenticate"] = "Signature"
        if status == 503:
            answer.headers["Retry-After"] = "60"
        return answer
    return HttpResponse(words, status=status, content_type="text/plain")
