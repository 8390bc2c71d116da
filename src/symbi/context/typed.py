"""Types at the door: what a program in Python gives is looked at before anything is done with it. Pure."""

from typing import Final

from symbi.errors import InputError

CODE: Final = "context.type"
TEXTS: Final = "a list or tuple of str"


def check_type(name: str, value: object, kinds: type | tuple[type, ...], said: str) -> None:
    """Refuse what is of another type; true and false are no numbers.

    Args:
        name: The argument.
        value: What was given.
        kinds: What it may be.
        said: The same in words.

    Raises:
        InputError: It names the argument, what it is to be, and what it was.
    """
    known = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
        raise _wrong(name, said, value)


def check_text(name: str, value: object) -> None:
    """Refuse what is no text, or one that cannot be written down.

    Raises:
        InputError: As `check_type`.
    """
    check_type(name, value, str, "a str")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        msg = f"`{name}` has a lone surrogate, which is no character"
        raise InputError(msg, code=CODE) from None


def check_each(name: str, values: object, kind: type, said: str) -> None:
    """Refuse what is no list or tuple, or has something of another type in it; one text is no list of its letters.

    Raises:
        InputError: As `check_type`.
    """
    if not isinstance(values, list | tuple):
        raise _wrong(name, said, values)
    for number, value in enumerate(values):
        if not isinstance(value, kind):
            msg = f"`{name}` is {said}, and has `{type(value).__name__}` at {number}"
            raise InputError(msg, code=CODE)


def _wrong(name: str, said: str, value: object) -> InputError:
    return InputError(f"`{name}` is {said}, and not `{type(value).__name__}`", code=CODE)
