"""Responses on an upstream that serves chat completions only."""

from __future__ import annotations

from dataclasses import replace

from proxy.gateway.ports import Answer, Dispatch, UpstreamFailed
from proxy.providers.translation.responses_answer import PlainOverChat, Reply
from proxy.providers.translation.responses_request import chat_request
from proxy.providers.translation.responses_stream import StreamedOverChat
from proxy.providers.upstream import Carrier


class ResponsesOverChat:
    """Carries `/v1/responses` by `chat`, the upstream's carrier of chat completions."""

    def __init__(self, chat: Carrier) -> None:
        self._chat = chat

    async def send(self, dispatch: Dispatch) -> Answer:
        """Send and wait for the answer's head; raises `UpstreamFailed`, naming fields as the client does."""
        request = chat_request(dispatch.ask.body)
        ask = replace(dispatch.ask, endpoint="/v1/chat/completions", body=request.body, usage_asked=True, query="")
        try:
            answer = await self._chat(replace(dispatch, ask=ask))
        except UpstreamFailed as failed:
            raise request.retold(failed) from None
        reply = Reply(dispatch)
        if answer.streamed:
            return StreamedOverChat(answer, reply, request.retold)
        return PlainOverChat(answer, reply, request.retold)
