"""What a model's tokens cost, by the price list that litellm brings along."""

from app.llm.local.engine import LOCAL_MODEL
from app.llm.provider import litellm


async def cost_usd(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Returns the price of one call in US dollars; None if the list does not have the model."""
    if model == LOCAL_MODEL:
        return 0.0
    library = await litellm()
    try:
        prompt, completion = library.cost_per_token(
            model=model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )
    except Exception:  # noqa: BLE001 — its error for an unknown model is a plain one
        return None
    return float(prompt + completion)
