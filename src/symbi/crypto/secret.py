"""What every object that holds a key has in common."""

from typing import Never, SupportsIndex


class Unpicklable:
    """Refuses to be pickled and copied, so that no key leaves the process by way of a queue, a cache or a dump."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        msg = f"a {type(self).__name__} is not pickled or copied"
        raise TypeError(msg)
