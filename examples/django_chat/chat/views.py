"""Pages: two blocking views and two async ones, all behind the same middleware."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.text import slugify
from django.views.decorators.http import require_POST

from .models import Message, Room, latest


@login_required
def rooms(request: HttpRequest) -> HttpResponse:
    """All rooms; a POST makes one."""
    if request.method == "POST":
        title = request.POST.get("title", "").strip()
        slug = slugify(title)[:50]
        if not slug or len(title) > 100:
            return HttpResponseBadRequest("a room needs a title, of no more than 100 characters")
        room, _ = Room.objects.get_or_create(slug=slug, defaults={"title": title})
        return redirect("room", room.slug)
    return render(request, "chat/rooms.html", {"rooms": Room.objects.all()})


@login_required
@require_POST
def say(request: HttpRequest, slug: str) -> HttpResponse:
    """The form of a browser without scripts; the message's signal tells all sockets."""
    room = get_object_or_404(Room, slug=slug)
    text = request.POST.get("text", "").strip()
    if not 0 < len(text) <= 1000:
        return HttpResponseBadRequest("say something, in no more than 1,000 characters")
    Message.objects.create(room=room, author=request.user, text=text)
    return redirect("room", slug)


async def room(request: HttpRequest, slug: str) -> HttpResponse:
    """A room, with what was said last: an async view, on Django's async ORM."""
    user = await request.auser()
    if not user.is_authenticated:
        return redirect("login")
    try:
        found = await Room.objects.aget(slug=slug)
    except Room.DoesNotExist:
        return HttpResponse("there is no such room", status=404)
    said = Message.objects.filter(room=found).select_related("author").order_by("-id")[:50]
    messages = [message.as_json() async for message in said]
    context = {"room": found, "messages": messages[::-1], "user": user}
    return render(request, "chat/room.html", context)


async def messages(request: HttpRequest, slug: str) -> JsonResponse:
    """The last messages as JSON; ``?after=ID`` for those since."""
    from asgiref.sync import sync_to_async

    user = await request.auser()
    if not user.is_authenticated:
        return JsonResponse({"error": "log in first"}, status=403)
    found = await Room.objects.filter(slug=slug).afirst()
    after = request.GET.get("after", "0")
    if found is None or not after.isdecimal():
        return JsonResponse({"error": "no such room, or no number after"}, status=404)
    return JsonResponse({"messages": await sync_to_async(latest)(found, int(after))})
