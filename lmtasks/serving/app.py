"""The server's paths: a request becomes a job of the worker, and its answer a response."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lmtasks.inference.continuing import Token
from lmtasks.serving import inference_api as inference
from lmtasks.serving.completions_api import REASONS, Telling, Wish
from lmtasks.serving.figures import Figures
from lmtasks.serving.refusals import Refusal, invalid, refusal_of
from lmtasks.serving.served import Served
from lmtasks.serving.streams import Stream, events
from lmtasks.serving.worker import Job

HERE = ("127.0.0.1", "localhost", "::1")
"""Names of this machine to itself."""

Handler = Callable[["Paths", Request], Awaitable[Response]]


def new_app(served: Served, *, local: bool, ready: Callable[[], None] = lambda: None) -> Starlette:
    """The application; it closes what is served when it ends.

    Args:
        local: only this machine asks. Requests that name another host are then refused: they come from a page on the
            web that had its own name point here.
        ready: called when requests are taken.
    """
    paths = Paths(served, local)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        ready()
        yield
        await asyncio.to_thread(served.close)

    routes = [
        Route("/", paths.told(Paths.about), methods=["GET"]),
        Route("/", paths.told(Paths.ask), methods=["POST"]),
        Route("/health", paths.told(Paths.health)),
        Route("/metrics", paths.told(Paths.metrics)),
        Route("/v1/models", paths.told(Paths.models)),
        Route("/v1/completions", paths.told(Paths.completions), methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_such_path})


async def _no_such_path(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    return _response(request, Refusal(status, "validation", f"{request.method} {request.scope['path']}: {detail}"))


class Paths:
    """What is done at each path."""

    def __init__(self, served: Served, local: bool) -> None:
        self.served, self.local = served, local
        self.figures = Figures(served.worker)

    def told(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """A handler whose refusals are told as such, and whose faults are told here and not to the client."""

        async def handle(request: Request) -> Response:
            began = time.perf_counter()
            try:
                if self.local and not _names_this_machine(request.headers.get("host", "")):
                    raise invalid("the header 'host' names another machine", 421)
                response = await handler(self, request)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception as error:
                response = _response(request, refusal_of(error))
            path = request.scope["path"]
            self.figures.requests.labels(path, response.status_code).inc()
            self.figures.seconds.labels(path).observe(time.perf_counter() - began)
            return response

        return handle

    async def about(self, request: Request) -> Response:
        """What is served here."""
        served = self.served
        recipe = served.predictor.recipe
        return _json({"model": served.name, "recipe": recipe.name, "pipeline": recipe.pipeline, "kind": served.kind})

    async def health(self, request: Request) -> Response:
        """That it goes on."""
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """The figures, for Prometheus."""
        return Response(self.figures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self, request: Request) -> Response:
        """The one model, in OpenAI's list."""
        model = {"id": self.served.name, "object": "model", "created": 0, "owned_by": "lmtasks"}
        return _json({"object": "list", "data": [model]})

    async def ask(self, request: Request) -> Response:
        """The Inference API; the shape of the answer is that of the pipeline."""
        question = msgspec.json.decode(await self._body(request), type=inference.Question)
        parameters = inference.parameters_of(self.served, question)
        arguments = inference.arguments_of(parameters)
        alone, texts = isinstance(question.inputs, str), question.texts
        if not isinstance(parameters, inference.TextParameters):
            if question.stream:
                raise invalid("stream: only continuations come in pieces")
            answers = await self._answers(self.served.job(texts, arguments))
            return _json(answers[0] if alone else answers)
        if question.stream:
            return await self._stream_to_text_clients(texts, arguments, parameters)
        heard: list[list[Token]] = [[] for _ in texts]

        def hear(number: int, token: Token) -> None:
            heard[number].append(token)

        answers = await self._answers(self.served.job(texts, arguments, hear if parameters.details else None))
        told = [
            inference.generated(text, answer, tokens, parameters)
            for text, answer, tokens in zip(texts, answers, heard, strict=True)
        ]
        return _json(told[:1] if alone else [[one] for one in told])

    async def _stream_to_text_clients(
        self, texts: list[str], arguments: Any, parameters: inference.TextParameters
    ) -> Response:
        if len(texts) != 1:
            raise invalid("stream: one text at a time")
        stream = await Stream.begun(self.served, texts, arguments)

        async def told() -> AsyncIterator[Any]:
            index, newest = 0, None
            async for _, token in stream.tokens():
                if newest is not None:
                    yield inference.piece(newest, index)
                index, newest = index + 1, token
            (answer,) = self._counted(stream.answers)
            assert newest is not None, "every continuation has a token"
            yield inference.last_piece(newest, index, texts[0], answer, parameters)

        return StreamingResponse(events(told(), stream, _told_to_text_clients), media_type="text/event-stream")

    async def completions(self, request: Request) -> Response:
        """OpenAI's completions."""
        if self.served.kind != "continuations":
            raise invalid("this model continues no texts: POST / is its path", 404)
        wish = msgspec.json.decode(await self._body(request), type=Wish)
        if wish.model not in (None, self.served.name):
            raise invalid(f"there is no model '{wish.model}' here, but '{self.served.name}'", 404)
        telling = Telling(wish, self.served.name)
        if not wish.stream:
            answers = await self._answers(self.served.job(telling.prompts, wish.arguments()))
            return _json(telling.whole(answers))
        stream = await Stream.begun(self.served, telling.prompts, wish.arguments())

        async def told() -> AsyncIterator[Any]:
            # What each answer ends with is told when it is known to be its end: a stop sequence is left out of it.
            held = [prompt if wish.echo else "" for prompt in telling.prompts]
            async for number, token in stream.tokens():
                if held[number]:
                    yield telling.chunk(number, held[number])
                held[number] = token.text
            answers = self._counted(stream.answers)
            for number, answer in enumerate(answers):
                yield telling.chunk(number, telling.until_stop(held[number]), REASONS[answer.finish])
            if wish.stream_options and wish.stream_options.include_usage:
                yield telling.usage(answers)
            yield "[DONE]"

        return StreamingResponse(events(told(), stream, _told_to_openai_clients), media_type="text/event-stream")

    async def _answers(self, job: Job) -> list[Any]:
        """The answers to all texts of a job, when they are there.

        Raises:
            Refusal: there is no room in line, or no time left.
        """
        waiting = asyncio.wrap_future(self.served.worker.submit(job))
        try:
            return self._counted(await asyncio.wait_for(waiting, self.served.limits.timeout))
        except TimeoutError:
            raise Refusal(504, "generation", f"no answer within {self.served.limits.timeout:g} s") from None
        finally:
            job.wanted = False

    def _counted(self, answers: list[Any]) -> list[Any]:
        if self.served.kind == "continuations":
            self.figures.tokens.inc(sum(answer.new_tokens for answer in answers))
        return answers

    async def _body(self, request: Request) -> bytes:
        """The body of a request that is JSON and not too long.

        A page on the web cannot send one from its reader's browser unasked, as it could anything else.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise invalid("the body has to be application/json", 415)
        most, body = self.served.limits.body, bytearray()
        try:
            async with asyncio.timeout(self.served.limits.timeout):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise invalid(f"the body has more than {most:,} bytes", 413)
        except TimeoutError:
            raise invalid("the body did not come in time", 408) from None
        return bytes(body)


def _names_this_machine(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in HERE
    except ValueError:  # no name at all
        return False


def _told_to_text_clients(refusal: Refusal) -> Any:
    return {"error": refusal.message, "error_type": refusal.kind}


def _told_to_openai_clients(refusal: Refusal) -> Any:
    kind = "invalid_request_error" if refusal.kind == "validation" else "server_error"
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": None}}


def _response(request: Request, refusal: Refusal) -> Response:
    openai = request.scope["path"].startswith("/v1/")
    told = (_told_to_openai_clients if openai else _told_to_text_clients)(refusal)
    return Response(msgspec.json.encode(told), refusal.status, refusal.headers, "application/json")


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content, enc_hook=_plain), media_type="application/json")


def _plain(value: Any) -> Any:
    """A number or an array of a library's own, as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an answer holds a {type(value).__name__}, which JSON has not")
