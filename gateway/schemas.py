"""The wire's shapes: what a request body may hold. Bad input becomes BadRequest with its param.

Unknown fields pass through to the engine; those that could harm it or another caller are refused.
Not here: reading the body (middleware/body_limit.py), what is done with it (routes/).
"""

from __future__ import annotations

import json
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import BadRequest, NotFound

DEPTH_AT_MOST = 32
CHOICES_AT_MOST = 16

# Templates, processors and transfer settings reach into the engine; salts and priorities into
# other callers' work; files and addresses into its network.
REFUSED = (
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "kv_transfer_params",
    "vllm_xargs",
    "priority",
    "cache_salt",
    "prompt_logprobs",
    "prompt_embeds",
)


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """The body as an object. BadRequest on bad UTF-8, bad JSON, NaN, or nesting beyond 32."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8. Encode the JSON as UTF-8.") from None
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_not_json(text, error)) from None
    if not isinstance(parsed, dict):
        raise BadRequest('The body must be a JSON object, as in {"model": …}.')
    if _too_deep(parsed):
        raise BadRequest(f"The body is nested deeper than {DEPTH_AT_MOST} levels. Flatten it.")
    return parsed


def _not_json(text: str, error: json.JSONDecodeError) -> str:
    if not text.strip():
        return "The body is empty. Send a JSON object."
    return f"The body is not valid JSON: line {error.lineno}, column {error.colno}."


def _too_deep(parsed: dict[str, Any]) -> bool:
    """Level by level, without recursion; the parser itself stops at 1024 levels."""
    level: list[Any] = [parsed]
    for _ in range(DEPTH_AT_MOST):
        inner: list[Any] = []
        for value in level:
            children = value.values() if isinstance(value, dict) else value
            inner.extend(child for child in children if isinstance(child, dict | list))
        if not inner:
            return False
        level = inner
    return True


# Completions -------------------------------------------------------------------------------


def check_completion(path: str, body: dict[str, Any], model: str) -> None:
    """Refuse what would be wrong for any engine; the rest is the engine's own to judge."""
    _check_refused(body)
    check_model(body, model)
    _check_type(body, "stream", bool, "true or false")
    _check_type(body, "stream_options", dict, "an object")
    _check_count(body, "max_tokens")
    _check_count(body, "max_completion_tokens")
    _check_choices(body)
    if path.endswith("/chat/completions"):
        _check_messages(body)
    else:
        _check_prompt(body)


def check_passed(body: dict[str, Any], model: str) -> None:
    """For the paths that are passed through: only what could do harm is judged here."""
    _check_refused(body)
    check_model(body, model)
    _check_type(body, "stream", bool, "true or false")


def _check_refused(body: dict[str, Any]) -> None:
    for name in REFUSED:
        if name in body:
            raise BadRequest(f"The field {name} is not taken here. Leave it out.", param=name)


def check_model(body: dict[str, Any], model: str) -> None:
    """The model may be left out (there is one); a wrong name is OpenAI's 404."""
    asked = body.get("model")
    if asked is None or asked == "":
        body["model"] = model
    elif not isinstance(asked, str):
        raise BadRequest("model must be a string.", param="model")
    elif asked != model:
        raise NotFound(
            f"The model «{asked[:100]}» does not exist here. This service has «{model}».",
            param="model",
            code="model_not_found",
        )


def _check_type(body: dict[str, Any], name: str, kind: type, expected: str) -> None:
    if body.get(name) is not None and not isinstance(body[name], kind):
        raise BadRequest(f"{name} must be {expected}.", param=name)


def _check_count(body: dict[str, Any], name: str) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest(f"{name} must be a whole number of at least 1.", param=name)


def _check_choices(body: dict[str, Any]) -> None:
    _check_count(body, "n")
    if (body.get("n") or 1) > CHOICES_AT_MOST:
        raise BadRequest(f"n may be at most {CHOICES_AT_MOST}.", param="n")
    if body.get("best_of") not in (None, 1):
        raise BadRequest("best_of is not taken here. Leave it out.", param="best_of")


def _check_messages(body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(
            "messages must be a list with at least one message, as in "
            '[{"role": "user", "content": "…"}].',
            param="messages",
        )
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(
                f"messages[{number}] must be an object with a role and a content.",
                param=f"messages[{number}]",
            )
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise BadRequest(
                f"messages[{number}].content must be a string or a list of parts.",
                param=f"messages[{number}].content",
            )


def _check_prompt(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list) or prompt == []:
        raise BadRequest(
            "prompt must be a string, a list of token ids, or a list of those.", param="prompt"
        )


# Chat turns --------------------------------------------------------------------------------


class ChatRequest(BaseModel):
    """`POST /v1/chat`. Further fields (`sampling()`) go to the model as they came."""

    model_config = ConfigDict(extra="allow", strict=True)

    prompt: str = Field(min_length=1)
    session_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    turn_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    system: str | None = None
    stream: bool = False

    @classmethod
    def parse(cls, body: dict[str, Any]) -> ChatRequest:
        """BadRequest with the first field that is wrong."""
        for name in (*REFUSED, "messages", "n", "stream_options", "return_token_ids", "echo"):
            if name in body:
                raise BadRequest(f"The field {name} is not taken here. Leave it out.", param=name)
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise validation_fault(error.errors()) from None

    def sampling(self) -> dict[str, Any]:
        """What goes to the model as it came: temperature, top_p and all fields unknown here."""
        own: dict[str, Any] = dict(self.model_extra or {})
        for name in ("temperature", "top_p"):
            if getattr(self, name) is not None:
                own[name] = getattr(self, name)
        return own


Fault = Literal["query", "path", "body", "header"]


def validation_fault(errors: Any) -> BadRequest:
    """pydantic's (or FastAPI's) list of faults as one BadRequest, without the input itself."""
    first = errors[0]
    where = [str(part) for part in first.get("loc", ()) if part not in Fault.__args__]  # type: ignore[attr-defined]
    name = ".".join(where) or "body"
    return BadRequest(f"{name}: {first.get('msg', 'not valid')}.", param=name)
