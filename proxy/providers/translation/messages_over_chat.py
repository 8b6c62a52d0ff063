"""Messages on an upstream that serves chat completions only."""

from __future__ import annotations

from dataclasses import replace

from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.translation.messages_answer import Envelope, MessageOverChat
from proxy.providers.translation.messages_request import chat_request
from proxy.providers.translation.messages_stream import StreamOverChat
from proxy.providers.upstream import Carrier


class MessagesOverChat:
    """Carries `/v1/messages` by `chat`, the upstream's carrier of chat completions."""

    def __init__(self, chat: Carrier) -> None:
        self._chat = chat

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head; raises `UpstreamFailed`, naming fields as the client does."""
        ask = dispatch.ask
        request = chat_request(ask)
        # The versions and betas of the one wire mean nothing on the other.
        headers = {name: value for name, value in (ask.forward_headers or {}).items() if name == "traceparent"}
        chat_ask = replace(
            ask,
            endpoint="/v1/chat/completions",
            body=request.body,
            usage_asked=True,
            forward_headers=headers,
            query="",
        )
        try:
            answer = await self._chat(replace(dispatch, ask=chat_ask))
        except UpstreamFailed as failed:
            raise request.retold(failed) from None
        envelope = Envelope.of(dispatch, request)
        return StreamOverChat(answer, envelope) if answer.streamed else MessageOverChat(answer, envelope)
