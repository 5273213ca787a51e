"""One call of a model, as small as calls are, to see whether it answers."""

import asyncio

from app.llm.failures import reason_of
from app.llm.hops import Hop
from app.llm.provider import http_client, litellm


async def probe(hop: Hop) -> str | None:
    """Returns why a model does not answer, or None if it does; it costs what a question of one word costs."""
    library = await litellm()
    try:
        async with http_client(hop.timeout_s) as client, asyncio.timeout(hop.timeout_s):
            await library.acompletion(
                model=hop.model,
                messages=[{"role": "user", "content": "Hello"}],
                api_key=hop.api_key,
                api_base=hop.api_base,
                client=client,
                timeout=hop.timeout_s,
                max_tokens=1,
                max_retries=0,
                num_retries=0,
            )
    except Exception as error:  # noqa: BLE001 — a provider may fail in any way, and its text is none of ours
        return reason_of(error)
    return None
