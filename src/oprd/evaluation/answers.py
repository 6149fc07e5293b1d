"""Find the answer in a response and bring it into a comparable form."""


def comparable(answer: str | None) -> str | None:
    """The form in which answers vote."""
    return answer
